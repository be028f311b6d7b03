/* test_mime.c - parts, headers and address headers as values of a policy, and the methods of the message that
 * look into its content: scripts that assert, and scripts that must fail with a text. */
#include "policy_env.h"

static int setup(void **state)
{
	env_begin(1);
	return 0;
}

static int teardown(void **state)
{
	env_end();
	return 0;
}

#define SAMPLE                                                                                      \
	"From: John Smith <first.last@example.com>\r\nTo: =?utf-8?q?Zo=C3=AB?= <a@b.example>, \"c " \
	"d\"@e.example\r\nSubject: hello\r\n\r\nbody\r\n"

static int start(const char *script)
{
	char *text = xasprintf("local kumo = require 'kumo'\n"
			       "local function fails(text, fn, ...)\n"
			       "  local ok, err = pcall(fn, ...)\n"
			       "  assert(not ok, 'it did not fail, but should with: ' .. text)\n"
			       "  assert(tostring(err):find(text, 1, true), "
			       "tostring(err) .. '\\nwas expected to say: ' .. text)\n"
			       "end\n"
			       "local function eq(a, b)\n"
			       "  assert(a == b, string.format('%%q is not %%q', tostring(a), tostring(b)))\n"
			       "end\n"
			       "local function same(a, b)\n"
			       "  eq(kumo.serde.json_encode_pretty(a), kumo.serde.json_encode_pretty(b))\n"
			       "end\n"
			       "kumo.on('try', function(msg)\n%s\nend)\n",
			       script);
	int rc = env_start(text);
	free(text);
	return rc;
}

struct script {
	const char *lua;
	const char *in;	 /* the message; NULL: SAMPLE */
	const char *out; /* what it is afterwards; NULL: as it was */
};

static void run_script(const struct script *s, size_t n)
{
	struct policy_call c;
	if (start(s->lua) != 0)
		fail_msg("script %zu: %s", n, err_text());
	str_t rcpt = STR("r@example.com"), in = str_of(s->in != NULL ? s->in : SAMPLE);
	struct body *b = body_new(in);
	struct message *m = message_new(STR("s@b\xc3\xbc.example"), &rcpt, 1, b);
	body_unref(b);
	CHECK(policy_call_begin(&c, "try", soon()) == 1);
	policy_push_message(c.L, m);
	int rc = policy_call_run(&c, 1, 0, soon());
	policy_call_end(&c);
	if (rc < 0) {
		fprintf(stderr, "script %zu:\n%s\n%s\n", n, s->lua, err_text());
		abort();
	}
	str_t want = s->out != NULL ? str_of(s->out) : in;
	struct buf now = BUF_INIT;
	buf_add(&now, m->prefix, m->n_prefix_bytes);
	buf_add(&now, m->body->p, m->body->n_bytes);
	if (!str_eq(buf_str(&now), want)) {
		fprintf(stderr, "script %zu leaves the message as:\n%s\nexpected:\n%s\n", n, now.p, want.p);
		abort();
	}
	CHECK(s->out == NULL || m->is_changed || m->is_body_changed);
	buf_fini(&now);
	message_unref(m);
	policy_stop();
}

#define RUN(name)                                                       \
	static void run_##name(void *arg)                               \
	{                                                               \
		for (size_t i = 0; i < ARRAY_SIZE(name##_scripts); i++) \
			run_script(&name##_scripts[i], i);              \
	}                                                               \
	static void test_##name(void **state)                           \
	{                                                               \
		worker_run(run_##name, NULL);                           \
	}

/* --- headermap and header --- */

#define HEADERS "local headers = kumo.mimepart.parse('Subject: x\\r\\n\\r\\n').headers\n"

static const struct script header_scripts[] = {
	/* what is read */
	{"local h = msg:parse_mime().headers\n"
	 "same(h:from(), { { name = 'John Smith', "
	 "address = { local_part = 'first.last', domain = 'example.com' } } })\n"
	 "same(h:to(), { { name = 'Zoë', address = { local_part = 'a', domain = 'b.example' } }, { address = "
	 "{ local_part = 'c d', domain = 'e.example' } } })\n"
	 "eq(h:subject(), 'hello')\n"
	 "eq(h:cc(), nil) eq(h:message_id(), nil) eq(h:references(), nil) eq(h:content_type(), nil)\n"
	 "eq(tostring(h), 'From: John Smith <first.last@example.com>\\r\\nTo: =?utf-8?q?Zo=C3=AB?= "
	 "<a@b.example>, \"c d\"@e.example\\r\\nSubject: hello\\r\\n')",
	 NULL, NULL},
	{"local h = kumo.mimepart.parse('A-Group: x\\r\\nTo: The A Team: Bodie <bodie@example.com>, "
	 "doyle@example.com;, x@y\\r\\n'\n"
	 "  .. 'Content-Type: text/plain; charset=us-ascii; name*=utf-8\\'\\'%C3%BC\\r\\nMessage-Id: "
	 "<a@b>\\r\\nReferences: <a@b>\\r\\n <c@d>\\r\\n'\n"
	 "  .. 'Sender: s@x\\r\\nMime-Version: 1.0\\r\\nComments: c\\r\\nContent-Id: "
	 "<i@x>\\r\\nContent-Disposition: inline\\r\\n'\n"
	 "  .. 'Content-Transfer-Encoding: 8bit\\r\\nBcc:\\r\\nReply-To: r@x\\r\\nResent-To: "
	 "t@x\\r\\nResent-From: f@x, g@x\\r\\nResent-Sender: S <s@x>\\r\\n\\r\\n').headers\n"
	 "same(h:to(), { { name = 'The A Team', entries = { { name = 'Bodie', address = { local_part = "
	 "'bodie', domain = 'example.com' } },\n"
	 "  { address = { local_part = 'doyle', domain = 'example.com' } } } }, { address = { local_part = "
	 "'x', domain = 'y' } } })\n"
	 "same(h:content_type(), { value = 'text/plain', "
	 "parameters = { charset = 'us-ascii', name = 'ü' } })\n"
	 "same(h:content_disposition(), { value = 'inline', parameters = {} })\n"
	 "same(h:content_transfer_encoding(), { value = '8bit', parameters = {} })\n"
	 "eq(h:message_id(), 'a@b') eq(h:content_id(), 'i@x') same(h:references(), { 'a@b', 'c@d' })\n"
	 "same(h:sender(), { address = { local_part = 's', domain = 'x' } })\n"
	 "eq(h:mime_version(), '1.0') eq(h:comments(), 'c') eq(#h:bcc(), 0) eq(#h:reply_to(), 1) "
	 "eq(#h:resent_to(), 1) eq(#h:resent_from(), 2)\n"
	 "eq(h:resent_sender().name, 'S') eq(h:resent_cc(), nil) eq(h:resent_bcc(), nil)",
	 NULL, NULL},
	/* a header */
	{"local h = msg:parse_mime().headers\n"
	 "local s = h:get_first_named 'SUBJECT'\n"
	 "eq(s.name, 'Subject') eq(s.value, 'hello') eq(s.raw_value, 'hello') eq(s.unstructured, 'hello') "
	 "eq(tostring(s), 'Subject: hello\\r\\n')\n"
	 "eq(h:get_first_named 'nothing', nil)\n"
	 "local to = h:get_first_named 'to'\n"
	 "eq(to.raw_value, '=?utf-8?q?Zo=C3=AB?= <a@b.example>, \"c d\"@e.example') same(to.value, "
	 "to.address_list) eq(to.mailbox_list[1].name, 'Zoë')\n"
	 "eq(to.unstructured, 'Zoë <a@b.example>, \"c d\"@e.example')\n"
	 "fails('invalid header `Subject`: invalid address', function() return s.address_list end)\n"
	 "fails('invalid header `Subject`: invalid message id', function() return s.message_id end)\n"
	 "fails('invalid header `Subject`: invalid message id', function() return s.message_id_list end)\n"
	 "fails('invalid header `To`: invalid address: "
	 "expected one, found 2', function() return to.mailbox end)\n"
	 "same(s.mime_params, { value = 'hello', parameters = {} })\n"
	 "fails('a Header has no field `nothing`', function() return s.nothing end)\n"
	 "local h2 = kumo.mimepart.parse('To: broken\\r\\nSender: a@b\\r\\nAuthentication-Results: "
	 "mx.example.com 1; dkim=pass reason=\"r x\" header.d=y; spf/1=fail\\r\\n\\r\\n').headers\n"
	 "eq(h2:get_first_named('to').value, "
	 "'broken') eq(h2:get_first_named('sender').value.address.domain, 'b')\n"
	 "fails('invalid header `To`: invalid address', h2.to, h2)\n"
	 "same(h2:get_first_named('authentication-results').value, "
	 "{ serv_id = 'mx.example.com', version = 1, results = {\n"
	 "  { method = 'dkim', result = 'pass', reason = 'r x', props = { ['header.d'] = 'y' } }, { method = "
	 "'spf', method_version = 1, result = 'fail', props = {} } } })\n"
	 "same(h2:get_first_named('authentication-results').authentication_results, "
	 "h2:get_first_named('authentication-results').value)",
	 NULL, NULL},
	/* iterating, adding, removing */
	{HEADERS
	 "headers:append('X-Something', 'Some value') headers:prepend('Received', 'from x') "
	 "headers:append('x-something', 'Grüße')\n"
	 "local names = {} for h in headers:iter() do names[#names + 1] = h.name end\n"
	 "same(names, { 'Received', 'Subject', 'X-Something', 'x-something' })\n"
	 "local values = {} for h in headers:iter 'X-SOMETHING' do values[#values + 1] = h.value end\n"
	 "same(values, { 'Some value', 'Grüße' })\n"
	 "eq(tostring(headers), 'Received: from x\\r\\nSubject: x\\r\\nX-Something: Some "
	 "value\\r\\nx-something: =?UTF-8?q?Gr=C3=BC=C3=9Fe?=\\r\\n')\n"
	 "eq(headers:remove_all_named 'x-SOMETHING', 2) eq(headers:get_first_named 'x-something', nil)\n"
	 "for h in headers:iter() do headers:remove_all_named(h.name) end\n"
	 "fails('invalid header name', headers.append, headers, 'X Y', 'v')\n"
	 "fails('invalid header name', headers.prepend, headers, 'X\\r\\nY', 'v')\n"
	 "fails('header `X`', headers.append, headers, 'X', 'a\\r\\nY: b')\n"
	 "fails('header `X`', headers.prepend, headers, 'X', 'a\\0')\n"
	 "fails('UTF-8', headers.append, headers, 'X', '\\xff')",
	 NULL, NULL},
	/* setting, each with text and with what the getter gives */
	{HEADERS "local john = { name = 'John, Smith', "
		 "address = { local_part = 'john.smith', domain = 'example.com' } }\n"
		 "local team = { name = 'The A Team', entries = { { address = { local_part = 'tiger', domain "
		 "= 'example.com' } } } }\n"
		 "headers:set_from('Zoë <a@b>') headers:set_to { john, team } headers:set_sender(john) "
		 "headers:set_subject 'Grüße ✉'\n"
		 "headers:set_cc 'a@b, G: c@d;' headers:set_bcc {} headers:set_reply_to 'r@x' "
		 "headers:set_comments 'c' headers:set_message_id '<a@b>'\n"
		 "headers:set_references { 'a@b', '<c@d>' } headers:set_mime_version '1.0' "
		 "headers:set_content_id '<i@x>'\n"
		 "headers:set_content_type { value = 'text/html', parameters = { charset = 'utf-8', "
		 "extra_somethin_something = 'a dash' } }\n"
		 "headers:set_content_disposition 'attachment; filename=ü' "
		 "headers:set_content_transfer_encoding 'base64'\n"
		 "headers:set_resent_from { john } headers:set_resent_sender 'a@b' headers:set_resent_to { "
		 "team } headers:set_resent_cc 'a@b' headers:set_resent_bcc 'a@b'\n"
		 "eq(tostring(headers), table.concat({\n"
		 "  'Subject: =?UTF-8?q?Gr=C3=BC=C3=9Fe_=E2=9C=89?=', 'From: =?UTF-8?q?Zo=C3=AB?= <a@b>',\n"
		 "  'To: \"John, Smith\" <john.smith@example.com>, \"The A Team\":', ' "
		 "<tiger@example.com>;', 'Sender: \"John, Smith\" <john.smith@example.com>',\n"
		 "  'Cc: <a@b>, \"G\": <c@d>;', 'Bcc:', 'Reply-To: <r@x>', 'Comments: c', 'Message-ID: "
		 "<a@b>', 'References: <a@b> <c@d>', 'MIME-Version: 1.0',\n"
		 "  'Content-ID: <i@x>', 'Content-Type: text/html; charset=\"utf-8\"; "
		 "extra_somethin_something=\"a dash\"',\n"
		 "  'Content-Disposition: attachment; filename*=UTF-8\\'\\'%C3%BC', "
		 "'Content-Transfer-Encoding: base64',\n"
		 "  'Resent-From: \"John, Smith\" <john.smith@example.com>', 'Resent-Sender: <a@b>', "
		 "'Resent-To: \"The A Team\": <tiger@example.com>;',\n"
		 "  'Resent-Cc: <a@b>', 'Resent-Bcc: <a@b>', '' }, '\\r\\n'))\n"
		 "for _, name in ipairs { 'from', 'to', 'sender', 'cc', 'bcc', 'reply_to', 'content_type', "
		 "'content_disposition', 'content_transfer_encoding',\n"
		 "    'resent_from', 'resent_sender', 'resent_to', 'resent_cc', 'resent_bcc', 'references', "
		 "'subject', 'comments', 'mime_version' } do\n"
		 "  local before = tostring(headers) headers['set_' .. name](headers, "
		 "headers[name](headers)) eq(tostring(headers), before)\n"
		 "end",
	 NULL, NULL},
	/* an id is set as it is read, and a getter knows its map */
	{HEADERS "headers:set_message_id 'a@b' headers:set_content_id(headers:message_id())\n"
		 "eq(tostring(headers), 'Subject: x\\r\\nMessage-ID: <a@b>\\r\\nContent-ID: <a@b>\\r\\n')\n"
		 "eq(headers.subject(), 'x') eq(headers.message_id(), 'a@b') eq(headers.to(), nil)\n"
		 "local get = headers.subject eq(get(), 'x') eq(get(headers), 'x')\n"
		 "eq(get(kumo.mimepart.parse('Subject: y\\r\\n\\r\\n').headers), 'y')\n"
		 "eq(headers.nope, nil) fails('HeaderMap expected', headers.iter)\n"
		 "fails('HeaderMap expected, got string', get, 'x')",
	 NULL, NULL},
	{HEADERS
	 "fails('invalid header `From`: invalid address: expected an address, not a group', "
	 "headers.set_from, headers, 'G: a@b;')\n"
	 "fails('invalid header `From`: [1]: ', headers.set_from, "
	 "headers, { { name = 'G', entries = {} } })\n"
	 "fails('invalid header `Sender`: invalid address: expected one, "
	 "found 2', headers.set_sender, headers, 'a@b, c@d')\n"
	 "fails('invalid header `Message-ID`: invalid message id', headers.set_message_id, headers, "
	 "'missing angles@example.com')\n"
	 "fails('invalid header `Message-ID`: the value: ', headers.set_message_id, headers, { 'a' })\n"
	 "fails('invalid header `References`: [1]: invalid message id', "
	 "headers.set_references, headers, { 'a b' })\n"
	 "fails('invalid header `To`: [2].address.domain: "
	 "missing, expected a string', headers.set_to, headers,\n"
	 "  { { address = { local_part = 'a', domain = 'b' } }, { address = { local_part = 'a' } } })\n"
	 "fails('invalid header `To`: [1]: unknown field `nam`', headers.set_to, headers, { { nam = 'x', "
	 "address = { local_part = 'a', domain = 'b' } } })\n"
	 "fails('invalid header `To`: [1].address: missing', headers.set_to, headers, { { name = 'x' } })\n"
	 "fails('invalid header `To`: [1].entries[1]: ', headers.set_to, "
	 "headers, { { name = 'x', entries = { 'a@b' } } })\n"
	 "fails('invalid header `To`: the value: ', headers.set_to, headers, 5)\n"
	 "fails('bad argument', headers.set_to, headers)\n"
	 "fails('invalid header `Content-Type`: invalid header: `te xt` cannot stand', "
	 "headers.set_content_type, headers, 'te xt')\n"
	 "fails('invalid header `Content-Type`: the value: unknown field `params`', "
	 "headers.set_content_type, headers, { value = 'a/b', params = {} })\n"
	 "fails('invalid header `Content-Type`: charset: ', headers.set_content_type, headers, { value = "
	 "'a/b', parameters = { charset = 5 } })\n"
	 "fails('invalid header `Subject`: the value: ', headers.set_subject, headers, { 'x' })\n"
	 "eq(tostring(headers), 'Subject: x\\r\\n')",
	 NULL, NULL},
	/* nothing gets out of its field */
	{HEADERS
	 "for _, name in ipairs { 'from', 'to', 'sender', 'cc', 'bcc', 'reply_to', 'content_type', "
	 "'content_disposition', 'content_transfer_encoding',\n"
	 "    'resent_from', 'resent_sender', 'resent_to', 'resent_cc', 'resent_bcc', 'references', "
	 "'subject', 'comments', 'mime_version', 'message_id', 'content_id' } do\n"
	 "  for _, bad in ipairs { '\\r\\n', '\\n', '\\r', '\\0', '\\r\\n ', '\\x7f' } do\n"
	 "    fails('must be UTF-8 without CR, LF, NUL', "
	 "headers['set_' .. name], headers, '<a@b' .. bad .. 'X: y>')\n"
	 "  end\n"
	 "  fails('must be UTF-8', headers['set_' .. name], headers, '\\xff')\n"
	 "end\n"
	 "for _, bad in ipairs { 'x\\r\\nX: y', 'x\\ny', 'x\\0', '\\xff' } do\n"
	 "  fails('invalid header `To`', headers.set_to, headers, { { name = bad, address = { local_part = "
	 "'a', domain = 'b' } } })\n"
	 "  fails('invalid header `To`', headers.set_to, headers, "
	 "{ { address = { local_part = bad, domain = 'b' } } })\n"
	 "  fails('invalid header `To`', headers.set_to, headers, "
	 "{ { address = { local_part = 'a', domain = bad } } })\n"
	 "  fails('invalid header `To`', headers.set_to, headers, { { name = bad, entries = {} } })\n"
	 "  fails('invalid header `References`', headers.set_references, headers, { bad })\n"
	 "  fails('invalid header `Content-Type`', headers.set_content_type, headers, { value = bad })\n"
	 "  fails('invalid header `Content-Type`', headers.set_content_type, headers, { value = 'a/b', "
	 "parameters = { x = bad } })\n"
	 "  fails('', headers.set_content_type, headers, { value = 'a/b', parameters = { [bad] = 'x' } })\n"
	 "end\n"
	 "eq(tostring(headers), 'Subject: x\\r\\n')",
	 NULL, NULL},
};
RUN(header)

/* --- parts --- */

static const struct script part_scripts[] = {
	{"local p = kumo.mimepart.parse 'Subject: hello\\r\\n\\r\\nbody\\r\\n'\n"
	 "eq(p.body, 'body\\r\\n') eq(p.id, '') eq(tostring(p), 'Subject: hello\\r\\n\\r\\nbody\\r\\n')\n"
	 "p.headers:set_subject 'new' p.body = 'changed, with ü in it' eq(p.body, 'changed, with ü in it')\n"
	 "eq(tostring(p), 'Subject: new\\r\\nContent-Type: text/plain; "
	 "charset=\"utf-8\"\\r\\nContent-Transfer-Encoding: "
	 "quoted-printable\\r\\n\\r\\nchanged, with =C3=BC in it')\n"
	 "p:replace_body('<b>', 'text/html') eq(p.body, "
	 "'<b>') eq(p.headers:content_type().value, 'text/html')\n"
	 "p:replace_body('\\0\\1', 'application/octet-stream') eq(p.body, '\\0\\1')\n"
	 "fails('a MimePart has no field `nothing`', function() return p.nothing end)\n"
	 "fails('the field `headers` of a MimePart cannot be set', function() p.headers = 1 end)\n"
	 "fails('string expected', function() p.body = {} end)\n"
	 "fails('the content of a multipart is its parts', p.replace_body, p, 'x', 'multipart/mixed')\n"
	 "fails('must be UTF-8 without CR, LF, NUL', p.replace_body, p, 'x', 'text/plain\\r\\nX: y')\n"
	 "fails('string expected', kumo.mimepart.parse, {})",
	 NULL, NULL},
	/* binary bytes stay what they are */
	{"local p = kumo.mimepart.parse('Subject: \\xff\\r\\n\\r\\n\\xfe\\0') eq(p.body, '\\xfe\\0') "
	 "eq(tostring(p), 'Subject: \\xff\\r\\n\\r\\n\\xfe\\0')",
	 NULL, NULL},
	/* constructors */
	{"eq(tostring(kumo.mimepart.new_text_plain 'Hello!'), 'Content-Type: text/plain; "
	 "charset=\"us-ascii\"\\r\\n\\r\\nHello!')\n"
	 "eq(tostring(kumo.mimepart.new_html '<b>Hello</b>!'), 'Content-Type: text/html; "
	 "charset=\"us-ascii\"\\r\\n\\r\\n<b>Hello</b>!')\n"
	 "eq(tostring(kumo.mimepart.new_text('text/markdown', 'Some ü')), 'Content-Type: text/markdown; "
	 "charset=\"utf-8\"\\r\\n'\n"
	 "  .. 'Content-Transfer-Encoding: base64\\r\\n\\r\\nU29tZSDDvA==')\n"
	 "eq(tostring(kumo.mimepart.new_binary('application/octet-stream', "
	 "'\\xbb\\xaa', { file_name = 'binary.dat' })),\n"
	 "  'Content-Type: application/octet-stream\\r\\nContent-Transfer-Encoding: "
	 "base64\\r\\nContent-Disposition: attachment; filename=\"binary.dat\"\\r\\n\\r\\nu6o=')\n"
	 "eq(tostring(kumo.mimepart.new_binary('image/gif', 'x', { inline = true, content_id = '<i@x>' })),\n"
	 "  'Content-Type: image/gif\\r\\nContent-Transfer-Encoding: base64\\r\\nContent-Disposition: "
	 "inline\\r\\nContent-ID: <i@x>\\r\\n\\r\\neA==')\n"
	 "eq(tostring(kumo.mimepart.new_binary('a/b', 'x', "
	 "nil)), tostring(kumo.mimepart.new_binary('a/b', 'x')))\n"
	 "local part = kumo.mimepart.new_binary('image/gif', 'x', { content_id = 'i@x' }) "
	 "eq(part.headers:content_id(), 'i@x')\n"
	 "fails('unknown field `filename`', kumo.mimepart.new_binary, 'a/b', 'x', { filename = 'y' })\n"
	 "fails('file_name: must be UTF-8', kumo.mimepart.new_binary, "
	 "'a/b', 'x', { file_name = 'a\\r\\nX: y' })\n"
	 "fails('content_id: must be', kumo.mimepart.new_binary, "
	 "'a/b', 'x', { content_id = 'a>\\r\\nX: y' })\n"
	 "fails('without CR, LF, NUL', kumo.mimepart.new_binary, 'a/b\\r\\nX: y', 'x')\n"
	 "fails('no type that data can have', kumo.mimepart.new_binary, 'multipart/mixed', 'x')\n"
	 "fails('table expected', kumo.mimepart.new_binary, 'a/b', 'x', 5)\n"
	 "fails('without CR, LF, NUL', kumo.mimepart.new_text, 'text/plain\\n', 'x')\n"
	 "fails('the text is not UTF-8', kumo.mimepart.new_text_plain, '\\xff')\n"
	 "fails('is no type', kumo.mimepart.new_text, 'plain', 'x')",
	 NULL, NULL},
	{"local main = kumo.mimepart.new_text_plain 'Hello, I am the main message content'\n"
	 "local attachment = kumo.mimepart.new_binary('application/octet-stream', "
	 "'\\xbb\\xaa', { file_name = 'binary.dat' })\n"
	 "local message = kumo.mimepart.new_multipart('multipart/mixed', "
	 "{ main, attachment }, 'my-boundary')\n"
	 "eq(tostring(message), table.concat({ 'Content-Type: "
	 "multipart/mixed; boundary=\"my-boundary\"', '', '--my-boundary',\n"
	 "  'Content-Type: text/plain; charset=\"us-ascii\"', '', "
	 "'Hello, I am the main message content', '--my-boundary',\n"
	 "  'Content-Type: application/octet-stream', 'Content-Transfer-Encoding: base64', "
	 "'Content-Disposition: attachment; filename=\"binary.dat\"', '',\n"
	 "  'u6o=', '--my-boundary--', '' }, '\\r\\n'))\n"
	 "main.body = 'changed afterwards' assert(not tostring(message):find('afterwards', 1, true))\n"
	 "message:append_part(main) assert(tostring(message):find('afterwards', 1, true))\n"
	 "message:append_part(message)\n"
	 "local s = kumo.mimepart.parse(tostring(message)):get_simple_structure()\n"
	 "eq(s.text_part.id, '1') eq(s.text_part.body, 'Hello, I am the main message content') "
	 "eq(#s.attachments, 5) eq(s.attachments[3].part.id, '4.1')\n"
	 "fails('element 1 of the list is a string, expected a MimePart', kumo.mimepart.new_multipart, "
	 "'multipart/mixed', { 'x' })\n"
	 "fails('cannot be a boundary', kumo.mimepart.new_multipart, 'multipart/mixed', {}, 'a\"b')\n"
	 "fails('without CR, LF, NUL', kumo.mimepart.new_multipart, 'multipart/mixed', {}, 'a\\r\\nb')\n"
	 "fails('`plain` is no type', kumo.mimepart.new_multipart, 'plain', {})\n"
	 "local odd = kumo.mimepart.new_multipart('application/x-mixed', { main }, 'b') "
	 "odd:append_part(main)\n"
	 "eq(tostring(odd), 'Content-Type: application/x-mixed; boundary=\"b\"\\r\\n\\r\\n--b\\r\\n' .. "
	 "tostring(main) .. '\\r\\n--b\\r\\n' .. tostring(main) .. '\\r\\n--b--\\r\\n')\n"
	 "fails('the content of a multipart is its parts', function() odd.body = 'x' end)\n"
	 "odd:replace_body('x', 'text/plain') eq(odd.body, 'x')\n"
	 "fails('can be appended to a multipart only', main.append_part, main, main)\n"
	 "local b1 = kumo.mimepart.new_multipart('multipart/mixed', "
	 "{}).headers:content_type().parameters.boundary\n"
	 "local b2 = kumo.mimepart.new_multipart('multipart/mixed', "
	 "{}).headers:content_type().parameters.boundary assert(b1 ~= b2)\n"
	 "local deep = main for i = 1, "
	 "63 do deep = kumo.mimepart.new_multipart('multipart/mixed', { deep }) end\n"
	 "fails('parts nested deeper than 64 levels', "
	 "kumo.mimepart.new_multipart, 'multipart/mixed', { deep })",
	 NULL, NULL},
	/* structure */
	{"local s = msg:parse_mime():get_simple_structure()\n"
	 "eq(s.text_part.body, 'text') eq(s.html_part.body, '<p>') eq(s.amp_html_part.body, 'amp') "
	 "eq(s.header_part.headers:subject(), 'x') eq(#s.attachments, 1)\n"
	 "local a = s.attachments[1]\n"
	 "eq(a.file_name, 'ü.gif') eq(a.inline, true) eq(a.content_id, 'i@x') eq(a.content_type, "
	 "'image/gif') eq(a.part.body, 'GIF')\n"
	 "local s2 = kumo.mimepart.new_binary('a/b', 'x'):get_simple_structure()\n"
	 "eq(s2.text_part, nil) eq(s2.html_part, nil) eq(s2.amp_html_part, nil) "
	 "eq(s2.attachments[1].file_name, nil) eq(s2.attachments[1].inline, false) "
	 "eq(s2.attachments[1].content_id, nil)",
	 "Subject: x\r\nContent-Type: multipart/mixed; "
	 "boundary=b\r\n\r\n--b\r\n\r\ntext\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>\r\n"
	 "--b\r\nContent-Type: text/x-amp-html\r\n\r\namp\r\n--b\r\nContent-Type: "
	 "image/gif\r\nContent-Disposition: inline;\r\n filename*=utf-8''%C3%BC.gif\r\n"
	 "Content-ID: <i@x>\r\nContent-Transfer-Encoding: base64\r\n\r\nR0lG\r\n--b--\r\n",
	 NULL},
	/* the documented example: both texts are changed, all else stays */
	{"local mime_part = msg:parse_mime()\n"
	 "local structure = mime_part:get_simple_structure()\n"
	 "structure.text_part.body = 'PREPENDED!\\r\\n' .. structure.text_part.body\n"
	 "structure.html_part.body = '<B>PREPENDED!</B>\\r\\n' .. structure.html_part.body\n"
	 "msg:set_data(tostring(mime_part))",
	 "Subject:  odd\r\nContent-Type: multipart/alternative; "
	 "boundary=b\r\n\r\npre\r\n--b\r\n\r\ntext\r\n--b  \r\nContent-Type: "
	 "text/html\r\n\r\n<p>\r\n--b--\r\nepi\r\n",
	 "Subject:  odd\r\nContent-Type: multipart/alternative; "
	 "boundary=b\r\n\r\npre\r\n--b\r\nContent-Type: text/plain\r\n\r\nPREPENDED!\r\ntext\r\n"
	 "--b  \r\nContent-Type: text/html\r\n\r\n<B>PREPENDED!</B>\r\n<p>\r\n--b--\r\nepi\r\n"},
	{"local p = kumo.mimepart.parse('Subject : Grüße\\n\\nüü\\n') local r = p:rebuild()\n"
	 "eq(tostring(r), 'Subject: =?UTF-8?q?Gr=C3=BC=C3=9Fe?=\\r\\nContent-Type: text/plain; "
	 "charset=\"utf-8\"\\r\\nContent-Transfer-Encoding: base64\\r\\n'\n"
	 "  .. 'MIME-Version: 1.0\\r\\n\\r\\nw7zDvA0K')\n"
	 "eq(tostring(p), 'Subject : Grüße\\n\\nüü\\n')",
	 NULL, NULL},
	/* builder */
	{"local builder = kumo.mimepart.builder()\n"
	 "builder:set_stable_content(true) builder:text_plain 'Hello, "
	 "plain' builder:text_html '<b>Hello, html</b>'\n"
	 "builder:attach('text/plain', 'I am a plain text file with no options specified')\n"
	 "builder:attach('application/octet-stream', '\\xaa\\xbb', { file_name = 'binary.dat' })\n"
	 "local root = builder:build()\n"
	 "eq(tostring(root), table.concat({ 'Content-Type: multipart/mixed; boundary=\"mm-boundary\"', "
	 "'MIME-Version: 1.0', 'Date: Tue, 1 Jul 2003 10:52:37 +0200', '',\n"
	 "  '--mm-boundary', 'Content-Type: multipart/alternative; "
	 "boundary=\"ma-boundary\"', '', '--ma-boundary',\n"
	 "  'Content-Type: text/plain; charset=\"us-ascii\"', '', 'Hello, plain', '--ma-boundary', "
	 "'Content-Type: text/html; charset=\"us-ascii\"', '',\n"
	 "  '<b>Hello, html</b>', '--ma-boundary--', '--mm-boundary', 'Content-Type: text/plain', "
	 "'Content-Transfer-Encoding: base64', '',\n"
	 "  'SSBhbSBhIHBsYWluIHRleHQgZmlsZSB3aXRoIG5vIG9wdGlvbnMgc3BlY2lmaWVk', '--mm-boundary', "
	 "'Content-Type: application/octet-stream',\n"
	 "  'Content-Transfer-Encoding: base64', 'Content-Disposition: attachment; filename=\"binary.dat\"', "
	 "'', 'qrs=', '--mm-boundary--', '' }, '\\r\\n'))\n"
	 "fails('has built its message already', builder.build, builder) fails('has built its message "
	 "already', builder.text_plain, builder, 'x')",
	 NULL, NULL},
	{"local b = kumo.mimepart.builder() b:text_amp_html 'amp' "
	 "b:text_html 'h' b:text_html 'html' b:text_plain 'text'\n"
	 "b:attach('image/gif', 'GIF', { inline = true, content_id = 'i@x' }) local extra = "
	 "kumo.mimepart.new_text_plain 'extra' b:attach_part(extra) extra.body = 'later'\n"
	 "local root = b:build() root.headers:set_subject 'Built' root.headers:set_from 'a@b'\n"
	 "local s = kumo.mimepart.parse(tostring(root)):get_simple_structure()\n"
	 "eq(s.text_part.body, 'text') eq(s.html_part.body, 'html') eq(s.amp_html_part.body, 'amp') "
	 "eq(s.header_part.headers:subject(), 'Built')\n"
	 "eq(s.text_part.id, '1.1') eq(s.html_part.id, '1.3.1') eq(s.attachments[1].part.id, '1.3.2') "
	 "eq(s.attachments[2].part.body, 'extra')\n"
	 "eq(root.headers:mime_version(), '1.0') assert(root.headers:get_first_named 'Date')\n"
	 "eq(tostring(kumo.mimepart.builder():build().body), '')\n"
	 "local c = kumo.mimepart.builder() fails('boolean expected', c.set_stable_content, c, 1) "
	 "fails('MimePart expected', c.attach_part, c, 'x')\n"
	 "fails('unknown field `name`', c.attach, c, 'a/b', 'x', { name = 'y' })",
	 NULL, NULL},
};
RUN(part)

/* --- the message --- */

#define DSN                                                                               \
	"From: x@y\r\nContent-Type: multipart/report; report-type=delivery-status; "      \
	"boundary=b\r\n\r\n--b\r\n\r\ntext\r\n--b\r\n"                                    \
	"Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; "               \
	"cs.utk.edu\r\n\r\nFinal-Recipient: rfc822;louisl@larry.slip.umd.edu\r\n"         \
	"Action: failed\r\nStatus: 4.0.0\r\nDiagnostic-Code: smtp; 426 connection timed " \
	"out\r\nLast-Attempt-Date: Thu, 7 Jul 1994 17:15:49 -0400\r\n\r\n--b--\r\n"

static const struct script message_scripts[] = {
	/* address headers */
	{"local from = msg:from_header()\n"
	 "eq(from.name, 'John Smith') eq(from.email, 'first.last@example.com') eq(from.user, 'first.last') "
	 "eq(from.domain, 'example.com')\n"
	 "eq(tostring(from), '[{\"name\":\"John Smith\",\"address\":\"first.last@example.com\"}]')\n"
	 "local list = msg:to_header().list eq(#list, 2)\n"
	 "eq(list[1].name, 'Zoë') eq(list[2].name, nil) eq(list[2].user, 'c d') eq(list[2].email, '\"c "
	 "d\"@e.example') eq(list[2].domain, 'e.example')\n"
	 "eq(tostring(list[2]), '{\"name\":null,\"address\":\"\\\\\"c d\\\\\"@e.example\"}')\n"
	 "eq(kumo.serde.json_encode(list), kumo.serde.json_encode(msg:to_header()))\n"
	 "for _, key in ipairs { 'name', 'user', 'domain', 'email' } do\n"
	 "  fails('does not have one address, but 2', function() return msg:to_header()[key] end)\n"
	 "end\n"
	 "fails('has no field `nothing`', function() return from.nothing end)\n"
	 "eq(msg:get_address_header('FROM').email, "
	 "'first.last@example.com') eq(msg:get_address_header 'cc', nil)\n"
	 "fails('invalid header `Subject`: invalid address', msg.get_address_header, msg, 'Subject')",
	 NULL, NULL},
	{"local from = msg:from_header() eq(from.name, "
	 "'TEST [ne_pas_repondre]') eq(from.domain, 'gmail.com')\n"
	 "eq(#msg:to_header().list, 1) eq(msg:to_header().email, 'c@d') eq(msg:to_header().name, nil)",
	 "From: TEST [ne_pas_repondre] <test@gmail.com>\r\nTo: G: c@d;\r\n\r\n", NULL},
	{"eq(msg:from_header(), nil)", "only a body\r\n", NULL},
	{"fails('invalid header `From`: invalid address: expected \\'@\\'', msg.from_header, msg)",
	 "From: broken <\r\n\r\n", NULL},
	/* conformance */
	{"eq(msg:check_fix_conformance('', ''), nil)\n"
	 "eq(msg:check_fix_conformance('LINE_TOO_LONG|MISSING_DATE_HEADER|MISSING_MIME_VERSION', "
	 "'MISSING_DATE_HEADER'),\n"
	 "  'Message has conformance issues: MISSING_DATE_HEADER|MISSING_MIME_VERSION')\n"
	 "fails('`TYPO` is no conformance issue', msg.check_fix_conformance, msg, 'TYPO', '')\n"
	 "fails('`TYPO` is no conformance issue', msg.check_fix_conformance, msg, '', 'TYPO')\n"
	 "fails('unknown field `id`', msg.check_fix_conformance, msg, '', 'LINE_TOO_LONG', { id = 'x' })\n"
	 "fails('field `message_id`', msg.check_fix_conformance, msg, '', '', { message_id = '<a@b>' })\n"
	 "fails('field `message_id`', msg.check_fix_conformance, "
	 "msg, '', '', { message_id = 'a\\r\\nX: y' })",
	 NULL, NULL},
	{"eq(msg:check_fix_conformance('MISSING_COLON_VALUE', "
	 "'LINE_TOO_LONG|NAME_ENDS_WITH_SPACE|NEEDS_TRANSFER_ENCODING|NON_CANONICAL_LINE_ENDINGS|MISSING_"
	 "MESSAGE_ID_HEADER|MISSING_MIME_VERSION',\n"
	 "  { message_id = 'my.id@example.com' }), nil)\n"
	 "eq(msg:get_first_named_header_value 'message-id', '<my.id@example.com>')",
	 "Subject : Gr\xc3\xbc\xc3\x9f"
	 "e\n\nx\n",
	 "Subject: =?UTF-8?q?Gr=C3=BC=C3=9Fe?=\r\n"
	 "Message-ID: <my.id@example.com>\r\nMIME-Version: 1.0\r\n\r\nx\r\n"},
	{"msg:check_fix_conformance('', 'NEEDS_TRANSFER_ENCODING', { detect_encoding = true, "
	 "include_encodings = { 'utf-16', 'shift_jis' }, exclude_encodings = { 'UTF-16' } })",
	 "\r\n\x93\xfa\x96\x7b\r\n",
	 "Content-Type: text/plain; charset=\"utf-8\"\r\nContent-Transfer-Encoding: base64\r\nMIME-Version: "
	 "1.0\r\n\r\n5pel5pysDQo="},
	{"msg:check_fix_conformance('', 'NEEDS_TRANSFER_ENCODING', { detect_encoding = true })",
	 "Subject: \x80\r\n\r\n", "Subject: =?UTF-8?q?=E2=82=AC?=\r\n\r\n"},
	{"local id = msg:id() msg:check_fix_conformance('', 'MISSING_MESSAGE_ID_HEADER')\n"
	 "eq(msg:get_first_named_header_value 'message-id', '<' .. id .. '@xn--b-eha.example>') "
	 "msg:remove_all_named_headers 'message-id' msg:append_header('X', 'y')",
	 NULL,
	 "From: John Smith <first.last@example.com>\r\nTo: =?utf-8?q?Zo=C3=AB?= <a@b.example>, \"c "
	 "d\"@e.example\r\nSubject: hello\r\nX: y\r\n\r\nbody\r\n"},
	/* adding to texts */
	{"eq(msg:append_text_html('<img>'), true) eq(msg:append_text_plain('more ü'), true)",
	 "Content-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; "
	 "charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
	 "Gr=FC=DFe an alle, die dies hier lesen\r\n\r\n--b\r\nContent-Type: "
	 "text/html\r\n\r\n<body></body><BODY>x</BODY>\r\n--b--\r\n",
	 "Content-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; "
	 "charset=\"utf-8\"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
	 "Gr=C3=BC=C3=9Fe an alle, die dies hier lesen\r\nmore =C3=BC\r\n--b\r\nContent-Type: "
	 "text/html\r\n\r\n<body></body><BODY>x<img></BODY>\r\n--b--\r\n"},
	{"eq(msg:append_text_html('<img>'), true) eq(msg:append_text_plain('x'), false)",
	 "Content-Type: text/html\r\n\r\nno tag", "Content-Type: text/html\r\n\r\nno tag<img>"},
	{"eq(msg:append_text_html('<img>'), false) fails('must be UTF-8', msg.append_text_plain, msg, "
	 "'\\xff') fails('string expected', msg.append_text_plain, msg)",
	 NULL, NULL},
	/* authentication results */
	{"msg:add_authentication_results('mx.example.com', { { method = 'dkim', result = 'pass', props = { "
	 "['header.d'] = 'github.com', ['header.a'] = 'rsa-sha256' } },\n"
	 "  { method = 'spf', method_version = 1, result = 'fail', reason = 'no \"way\"', props = {} } })\n"
	 "fails('results[1].method: missing, expected a string', msg.add_authentication_results, msg, 'x', { "
	 "{ result = 'pass' } })\n"
	 "fails('results[2]: unknown field `prop`', msg.add_authentication_results, msg, 'x', { { method = "
	 "'a', result = 'b' }, { method = 'a', result = 'b', prop = {} } })\n"
	 "for _, bad in ipairs { 'a\\r\\nb', 'a\\0b' } do\n"
	 "  fails('without CR, LF, NUL', msg.add_authentication_results, msg, bad, {})\n"
	 "  fails('cannot be written', msg.add_authentication_results, "
	 "msg, 'x', { { method = bad, result = 'pass' } })\n"
	 "  fails('cannot be written', msg.add_authentication_results, "
	 "msg, 'x', { { method = 'a', result = bad } })\n"
	 "  fails('cannot be written', msg.add_authentication_results, msg, 'x', { { method = 'a', result = "
	 "'b', reason = bad } })\n"
	 "  fails('cannot be written', msg.add_authentication_results, msg, 'x', { { method = 'a', result = "
	 "'b', props = { x = bad } } })\n"
	 "end",
	 "Subject: x\r\n\r\n",
	 "Authentication-Results: mx.example.com;\r\n dkim=pass header.a=rsa-sha256 header.d=github.com;\r\n"
	 " spf/1=fail reason=\"no \\\"way\\\"\"\r\nSubject: x\r\n\r\n"},
	{"msg:add_authentication_results('mx.example.com', {})", "Subject: x\r\n\r\n",
	 "Authentication-Results: mx.example.com; none\r\nSubject: x\r\n\r\n"},
	/* reports */
	{"same(msg:parse_rfc3464(), { per_message = { reporting_mta = { mta_type = 'dns', name = "
	 "'cs.utk.edu' }, extensions = {} }, per_recipient = { {\n"
	 "  final_recipient = { recipient_type = 'rfc822', recipient = 'louisl@larry.slip.umd.edu' }, action "
	 "= 'failed', status = { class = 4, subject = 0, detail = 0 },\n"
	 "  diagnostic_code = { diagnostic_type = 'smtp', diagnostic = '426 connection timed out' }, "
	 "last_attempt_date = '1994-07-07T21:15:49Z', extensions = {} } } })\n"
	 "eq(msg:parse_rfc5965(), nil)",
	 DSN, NULL},
	{"fails('the message/delivery-status part is missing', msg.parse_rfc3464, msg)",
	 "Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b--\r\n", NULL},
	{"local r = msg:parse_rfc5965() eq(r.feedback_type, 'abuse') eq(r.version, '1') "
	 "same(r.original_rcpto_to, { '<a@b>' }) eq(r.incidents, nil)\n"
	 "same(r.extensions, { ['x-y'] = { 'z' } }) eq(r.original_message, 'Subject: x\\n') "
	 "eq(msg:parse_rfc3464(), nil)",
	 "Content-Type: multipart/report; report-type=feedback-report; "
	 "boundary=b\r\n\r\n--b\r\nContent-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\n"
	 "User-Agent: x/1\r\nVersion: 1\r\nOriginal-Rcpt-To: <a@b>\r\nX-Y: z\r\n\r\n--b\r\nContent-Type: "
	 "text/rfc822-headers\r\n\r\nSubject: x\r\n\r\n--b--\r\n",
	 NULL},
	{"eq(msg:parse_rfc3464(), nil) eq(msg:parse_rfc5965(), nil)", NULL, NULL},
};
RUN(message)

/* Parts of a state that is thrown away, of a loop that makes many, and of an error on the way: all are let go
 * (the sanitizers watch). */
static const struct script garbage_scripts[] = {
	{"for i = 1, 200 do\n"
	 "  local p = kumo.mimepart.parse('Content-Type: multipart/mixed; "
	 "boundary=b\\r\\n\\r\\n--b\\r\\n\\r\\n' .. string.rep('x', 100000) .. '\\r\\n--b--')\n"
	 "  local s = p:get_simple_structure() local t, "
	 "h = s.text_part, p.headers p, s = nil, nil collectgarbage()\n"
	 "  eq(#t.body, 100000) eq(h:content_type().value, 'multipart/mixed') t.body = 'y'\n"
	 "  pcall(t.replace_body, t, 'x', 'multipart/mixed') pcall(h.set_from, h, { { address = 5 } })\n"
	 "  local b = kumo.mimepart.builder() b:attach('a/b', 'x') b:attach_part(t)\n"
	 "end\n"
	 "kept = kumo.mimepart.new_text_plain 'for ever'",
	 NULL, NULL},
};
RUN(garbage)

/* As deep as it gets, on a fiber's stack: multiparts in messages in multiparts. */
static const struct script deep_scripts[] = {
	{"local text = 'Subject: \\xfc\\r\\n\\r\\n\\xfc\\r\\n'\n"
	 "for message = 1, 12 do\n"
	 "  text = 'Content-Type: message/rfc822\\r\\n\\r\\n' .. text\n"
	 "  for level = 1, 63 do\n"
	 "    local b = message .. '.' .. level\n"
	 "    text = 'Content-Type: multipart/mixed; boundary=\"' .. b .. '\"\\r\\n\\r\\n--' .. b .. "
	 "'\\r\\n' .. text .. '\\r\\n--' .. b .. '--\\r\\n'\n"
	 "  end\n"
	 "end\n"
	 "local p = kumo.mimepart.parse(text) eq(tostring(p), text)\n"
	 "local r = p:rebuild() assert(#tostring(r) > #text "
	 "/ 2) eq(#r:get_simple_structure().attachments, 1)\n"
	 "local copy = kumo.mimepart.parse(tostring(r)):rebuild() eq(tostring(copy), tostring(r))",
	 NULL, NULL},
};
RUN(deep)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_header),	cmocka_unit_test(test_part), cmocka_unit_test(test_message),
		cmocka_unit_test(test_garbage), cmocka_unit_test(test_deep),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
