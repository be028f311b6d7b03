/* in_command.c - the grammar of commands. A line is a verb, then what the verb wants; blanks are single, but
 * those behind the colon of MAIL FROM and RCPT TO, and at the end of a line (tabs, too: RFC 5321 section
 * 4.1.1), are passed over, as clients send them. Addresses without brackets are taken, too (RFC 5321 has
 * none, but the world does); the brackets are found here with the quotes in mind, and what is in them is
 * mailbox_parse's.
 *
 * A line with a control character or with what is no UTF-8 is no command, whatever it says. */
#include "smtp/in_command.h"

#include "base/err.h"
#include "base/text.h"

enum {
	IN_NAME_MAX = 255,  /* of EHLO */
	IN_ENVID_MAX = 100, /* RFC 3461 section 4.4 */
	IN_ORCPT_MAX = 500, /* section 4.2 */
};

static int in_refuse(struct in_refusal *why, int code, const char *text)
{
	*why = (struct in_refusal){code, text};
	return -1;
}

static bool in_is_alnum(char c)
{
	return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
}

/* --- verbs --- */

static const struct {
	str_t name;
	enum in_verb verb;
} in_verbs[] = {
	{{"HELO", 4}, IN_HELO},
	{{"EHLO", 4}, IN_EHLO},
	{{"MAIL", 4}, IN_MAIL},
	{{"RCPT", 4}, IN_RCPT},
	{{"DATA", 4}, IN_DATA},
	{{"BDAT", 4}, IN_BDAT},
	{{"RSET", 4}, IN_RSET},
	{{"NOOP", 4}, IN_NOOP},
	{{"QUIT", 4}, IN_QUIT},
	{{"AUTH", 4}, IN_AUTH},
	{{"STARTTLS", 8}, IN_STARTTLS},
	{{"XCLIENT", 7}, IN_XCLIENT},
	/* Requests that scripts of web pages can have a browser send. */
	{{"GET", 3}, IN_HTTP},
	{{"POST", 4}, IN_HTTP},
	{{"PUT", 3}, IN_HTTP},
	{{"HEAD", 4}, IN_HTTP},
	{{"CONNECT", 7}, IN_HTTP},
	{{"DELETE", 6}, IN_HTTP},
	{{"OPTIONS", 7}, IN_HTTP},
	{{"PATCH", 5}, IN_HTTP},
	{{"TRACE", 5}, IN_HTTP},
	{{"PRI", 3}, IN_HTTP},
};

static enum in_verb in_verb_of(str_t word)
{
	for (size_t i = 0; i < ARRAY_SIZE(in_verbs); i++)
		if (str_ieq(word, in_verbs[i].name))
			return in_verbs[i].verb;
	return IN_UNIMPLEMENTED;
}

static str_t in_skip_blanks(str_t s)
{
	while (s.n > 0 && s.p[0] == ' ')
		s = str_skip(s, 1);
	return s;
}

/* Up to the next blank, which is passed over. */
static str_t in_take_word(str_t *rest)
{
	ptrdiff_t blank = str_chr(*rest, ' ', 0);
	str_t word = blank < 0 ? *rest : str_head(*rest, (size_t)blank);
	*rest = in_skip_blanks(str_skip(*rest, word.n));
	return word;
}

static int in_no_argument(str_t rest, struct in_refusal *why)
{
	return rest.n == 0 ? 0 : in_refuse(why, 501, "5.5.4 this command takes no argument");
}

/* --- MAIL and RCPT --- */

/* The path at the beginning of *rest, brackets included where there are some; empty when there is no end to
 * it. */
static str_t in_take_path(str_t *rest)
{
	bool has_bracket = rest->n > 0 && rest->p[0] == '<', is_quoted = false;
	size_t i = 0;
	for (; i < rest->n; i++) {
		char c = rest->p[i];
		if (is_quoted && c == '\\')
			i++;
		else if (c == '"')
			is_quoted = !is_quoted;
		else if (!is_quoted && has_bracket && c == '>')
			break;
		else if (!is_quoted && !has_bracket && c == ' ')
			break;
	}
	if (has_bracket && i >= rest->n)
		return STR_NULL;
	str_t path = str_head(*rest, has_bracket ? i + 1 : i);
	*rest = str_skip(*rest, path.n);
	return path;
}

/* "SIZE=1000": a keyword and perhaps a value (RFC 5321 section 4.1.2). */
static bool in_take_parameter(str_t *rest, str_t *name, str_t *value)
{
	str_t word = in_take_word(rest);
	ptrdiff_t eq = str_chr(word, '=', 0);
	*name = eq < 0 ? word : str_head(word, (size_t)eq);
	*value = eq < 0 ? STR_NULL : str_skip(word, (size_t)eq + 1);
	if (name->n == 0 || !in_is_alnum(name->p[0]) || (eq >= 0 && value->n == 0))
		return false;
	for (size_t i = 0; i < name->n; i++)
		if (!in_is_alnum(name->p[i]) && name->p[i] != '-')
			return false;
	for (size_t i = 0; i < value->n; i++)
		if (value->p[i] == '=')
			return false;
	return true;
}

/* xtext (RFC 3461 section 4): appended to out, decoded. False when it is none. */
static bool in_xtext_decode(struct buf *out, str_t in)
{
	for (size_t i = 0; i < in.n; i++) {
		char c = in.p[i];
		if (c == '+') {
			int hi = i + 2 < in.n ? hex_digit(in.p[i + 1]) : -1,
			    lo = hi >= 0 ? hex_digit(in.p[i + 2]) : -1;
			if (lo < 0 || in.p[i + 1] >= 'a' || in.p[i + 2] >= 'a') /* upper case only */
				return false;
			buf_add_c(out, (char)(hi << 4 | lo));
			i += 2;
		} else if (c > ' ' && c < 0x7f && c != '=') {
			buf_add_c(out, c);
		} else {
			return false;
		}
	}
	return true;
}

/* ORCPT and AUTH have xtext with an address in it, which may have an '=' only as +3D. */
static bool in_is_xtext(str_t s, size_t max)
{
	struct buf b = BUF_INIT;
	bool is_good = s.n > 0 && s.n <= max && in_xtext_decode(&b, s);
	buf_fini(&b);
	return is_good;
}

static bool in_is_notify(str_t value)
{
	static const str_t word[] = {{"SUCCESS", 7}, {"FAILURE", 7}, {"DELAY", 5}};
	unsigned seen = 0;
	str_t rest = value, one;
	if (str_ieq(value, STR("NEVER")))
		return true;
	if (value.n == 0 || value.p[value.n - 1] == ',')
		return false;
	while (rest.n > 0 && str_split(&rest, ',', &one)) {
		unsigned bit = 0;
		for (unsigned i = 0; i < ARRAY_SIZE(word); i++)
			if (str_ieq(one, word[i]))
				bit = 1u << i;
		if (bit == 0 || (seen & bit) != 0)
			return false;
		seen |= bit;
	}
	return true;
}

/* "rfc822;user+40example.com" */
static bool in_is_orcpt(str_t value)
{
	ptrdiff_t semicolon = str_chr(value, ';', 0);
	if (semicolon <= 0 || value.n > IN_ORCPT_MAX)
		return false;
	for (ptrdiff_t i = 0; i < semicolon; i++)
		if (!in_is_alnum(value.p[i]) && value.p[i] != '-')
			return false;
	str_t address = str_skip(value, (size_t)semicolon + 1);
	if (str_ieq(str_head(value, (size_t)semicolon),
		    STR("utf-8"))) /* RFC 6533 section 3 has an encoding of its own */
		return address.n > 0;
	return in_is_xtext(address, IN_ORCPT_MAX);
}

/* The bits are those of parameters that have been seen: each may come once. */
enum {
	IN_P_SIZE = 1,
	IN_P_BODY = 2,
	IN_P_UTF8 = 4,
	IN_P_TLS = 8,
	IN_P_RET = 16,
	IN_P_ENVID = 32,
	IN_P_AUTH = 64,
	IN_P_NOTIFY = 128,
	IN_P_ORCPT = 256
};

/* Takes one parameter of MAIL: its bit; 0: there is no such one; -1: not with this value. */
static int in_mail_parameter(struct in_command *c, str_t name, str_t value)
{
	if (str_ieq(name, STR("SIZE"))) { /* RFC 1870 */
		c->has_size = value.n <= 20 && str_to_u64(value, &c->size_bytes);
		return c->has_size ? IN_P_SIZE : -1;
	}
	if (str_ieq(name, STR("BODY"))) /* RFC 6152; what the body really is shows when it has come */
		return str_ieq(value, STR("7BIT")) || str_ieq(value, STR("8BITMIME")) ? IN_P_BODY : -1;
	if (str_ieq(name, STR("SMTPUTF8"))) { /* RFC 6531 */
		c->is_smtputf8 = true;
		return value.p == NULL ? IN_P_UTF8 : -1;
	}
	if (str_ieq(name, STR("REQUIRETLS"))) { /* RFC 8689 */
		c->is_requiretls = true;
		return value.p == NULL ? IN_P_TLS : -1;
	}
	if (str_ieq(name, STR("RET"))) {
		c->ret = str_ieq(value, STR("FULL"))   ? IN_RET_FULL
			 : str_ieq(value, STR("HDRS")) ? IN_RET_HDRS
						       : IN_RET_NONE;
		return c->ret != IN_RET_NONE ? IN_P_RET : -1;
	}
	if (str_ieq(name, STR("ENVID"))) {
		c->envid = value;
		return in_is_xtext(value, IN_ENVID_MAX) ? IN_P_ENVID : -1;
	}
	if (str_ieq(name, STR("AUTH"))) /* RFC 4954 section 5: who says so is not trusted with it */
		return str_eq(value, STR("<>")) || in_is_xtext(value, 500) ? IN_P_AUTH : -1;
	return 0;
}

static int in_rcpt_parameter(struct in_command *c, str_t name, str_t value)
{
	if (str_ieq(name, STR("NOTIFY"))) {
		c->notify = value;
		return in_is_notify(value) ? IN_P_NOTIFY : -1;
	}
	if (str_ieq(name, STR("ORCPT"))) {
		c->orcpt = value;
		return in_is_orcpt(value) ? IN_P_ORCPT : -1;
	}
	return 0;
}

static int in_parse_parameters(struct in_command *c, str_t rest, struct in_refusal *why)
{
	int seen = 0;
	while (rest.n > 0) {
		str_t name, value;
		if (!in_take_parameter(&rest, &name, &value))
			return in_refuse(why, 501, "5.5.4 malformed parameter");
		int bit = c->verb == IN_MAIL ? in_mail_parameter(c, name, value)
					     : in_rcpt_parameter(c, name, value);
		if (bit == 0)
			return in_refuse(why, 555, "5.5.4 unknown parameter");
		if (bit < 0)
			return in_refuse(why, 501, "5.5.4 a parameter has a value that it cannot have");
		if ((seen & bit) != 0)
			return in_refuse(why, 501, "5.5.4 a parameter is given twice");
		seen |= bit;
	}
	return 0;
}

/* "FROM:<a@b> SIZE=1000" */
static int in_parse_envelope(struct in_command *c, str_t rest, struct in_refusal *why)
{
	bool is_mail = c->verb == IN_MAIL;
	str_t to = is_mail ? STR("FROM:") : STR("TO:");
	if (!str_istarts(rest, to))
		return in_refuse(why, 501,
				 is_mail ? "5.5.2 expected MAIL FROM:<address>"
					 : "5.5.2 expected RCPT TO:<address>");
	rest = in_skip_blanks(str_skip(rest, to.n));
	str_t path = in_take_path(&rest);
	bool is_good = path.n > 0 && (rest.n == 0 || rest.p[0] == ' ') && mailbox_parse(path, &c->box) == 0;
	err_clear();
	if (!is_good)
		return in_refuse(why, 501,
				 is_mail ? "5.1.7 the sender is no address"
					 : "5.1.3 the recipient is no address");
	if (!is_mail && c->box.email.n == 0)
		return in_refuse(why, 501, "5.1.3 the null address cannot be a recipient");
	return in_parse_parameters(c, in_skip_blanks(rest), why);
}

/* --- the others --- */

static int in_parse_name(struct in_command *c, str_t rest, struct in_refusal *why)
{
	c->arg = rest;
	if (rest.n == 0)
		return in_refuse(why, 501, "5.5.4 say who you are: a domain or an address literal");
	if (rest.n > IN_NAME_MAX || str_chr(rest, ' ', 0) >= 0)
		return in_refuse(why, 501, "5.5.4 that is no domain and no address literal");
	return 0;
}

/* "86 LAST" (RFC 3030 section 2) */
static int in_parse_bdat(struct in_command *c, str_t rest, struct in_refusal *why)
{
	str_t size = in_take_word(&rest);
	c->is_last = str_ieq(rest, STR("LAST"));
	if (size.n > 20 || !str_to_u64(size, &c->chunk_bytes) || (rest.n > 0 && !c->is_last))
		return in_refuse(why, 501,
				 "5.5.4 expected BDAT, the size of the chunk, and LAST with the last one");
	return 0;
}

static int in_parse_auth(struct in_command *c, str_t rest, struct in_refusal *why)
{
	c->arg = in_take_word(&rest);
	c->initial = rest.n > 0 ? rest : STR_NULL;
	if (c->arg.n == 0)
		return in_refuse(why, 501, "5.5.4 AUTH needs a mechanism");
	if (str_chr(rest, ' ', 0) >= 0)
		return in_refuse(why, 501, "5.5.2 malformed AUTH command");
	return 0;
}

static int in_check_bytes(str_t line, struct in_refusal *why)
{
	for (size_t i = 0; i < line.n; i++)
		if ((unsigned char)line.p[i] < 0x20 || line.p[i] == 0x7f)
			return in_refuse(why, 500, "5.5.2 control characters in the command");
	return str_is_utf8(line) ? 0 : in_refuse(why, 501, "5.5.2 the command is not UTF-8");
}

int in_command_parse(str_t line, struct in_command *out, struct in_refusal *why)
{
	*out = (struct in_command){.verb = IN_UNIMPLEMENTED};
	while (line.n > 0 && (line.p[line.n - 1] == ' ' || line.p[line.n - 1] == '\t'))
		line.n--;
	if (in_check_bytes(line, why) != 0)
		return -1;
	str_t rest = line, word = in_take_word(&rest);
	if (word.n == 0)
		return in_refuse(why, 500, "5.5.2 expected a command");
	out->verb = in_verb_of(word);
	switch (out->verb) {
	case IN_HELO:
	case IN_EHLO:
		return in_parse_name(out, rest, why);
	case IN_MAIL:
	case IN_RCPT:
		return in_parse_envelope(out, rest, why);
	case IN_BDAT:
		return in_parse_bdat(out, rest, why);
	case IN_AUTH:
		return in_parse_auth(out, rest, why);
	case IN_XCLIENT:
		out->arg = rest;
		return 0;
	case IN_DATA:
	case IN_RSET:
	case IN_QUIT:
	case IN_STARTTLS:
		return in_no_argument(rest, why);
	case IN_NOOP: /* may have one, which is ignored */
	case IN_UNIMPLEMENTED:
	case IN_HTTP:
		return 0;
	}
	return 0;
}

/* --- encodings --- */

static int in_xclient_addr(str_t text, struct net_addr *out)
{
	if (str_istarts(text, STR("IPV6:")))
		text = str_skip(text, 5);
	if (text.n == 0 || text.p[0] == '[' || net_addr_parse_ip(text, 0, out) != 0) {
		err_clear();
		return -1;
	}
	return 0;
}

static int in_xclient_port(str_t text, int *out)
{
	uint64_t v;
	if (text.n > 5 || !str_to_u64(text, &v) || v > 65535)
		return -1;
	*out = (int)v;
	return 0;
}

static int in_xclient_attribute(struct in_xclient *x, str_t name, str_t value, struct in_refusal *why)
{
	struct net_addr *addr = str_ieq(name, STR("ADDR"))	 ? &x->addr
				: str_ieq(name, STR("DESTADDR")) ? &x->dest
								 : NULL;
	int *port = str_ieq(name, STR("PORT"))	     ? &x->port
		    : str_ieq(name, STR("DESTPORT")) ? &x->dest_port
						     : NULL;
	if (addr == NULL && port == NULL)
		return in_refuse(why, 501, "5.5.4 unknown XCLIENT attribute");
	if ((addr != NULL && addr->len != 0) || (port != NULL && *port >= 0))
		return in_refuse(why, 501, "5.5.4 an XCLIENT attribute is given twice");
	if (str_ieq(value, STR("[UNAVAILABLE]")) || str_ieq(value, STR("[TEMPUNAVAIL]")))
		return 0;
	if (addr != NULL ? in_xclient_addr(value, addr) != 0 : in_xclient_port(value, port) != 0)
		return in_refuse(why, 501, "5.5.4 bad value of an XCLIENT attribute");
	return 0;
}

int in_xclient_parse(str_t attributes, struct in_xclient *out, struct in_refusal *why)
{
	struct buf value = BUF_INIT;
	int rc = attributes.n > 0 ? 0 : in_refuse(why, 501, "5.5.4 XCLIENT needs attributes");
	*out = (struct in_xclient){.port = -1, .dest_port = -1};
	while (attributes.n > 0 && rc == 0) {
		str_t word = in_take_word(&attributes);
		ptrdiff_t eq = str_chr(word, '=', 0);
		buf_clear(&value);
		if (eq <= 0 || !in_xtext_decode(&value, str_skip(word, (size_t)eq + 1)))
			rc = in_refuse(why, 501, "5.5.4 malformed XCLIENT attribute");
		else
			rc = in_xclient_attribute(out, str_head(word, (size_t)eq), buf_str(&value), why);
	}
	buf_fini(&value);
	return rc;
}

bool in_sasl_plain_parse(str_t message, str_t *authz, str_t *authc, str_t *password)
{
	ptrdiff_t first = str_chr(message, 0, 0),
		  second = first < 0 ? -1 : str_chr(message, 0, (size_t)first + 1);
	if (second < 0 || str_chr(message, 0, (size_t)second + 1) >= 0 || !str_is_utf8(message))
		return false;
	*authz = str_head(message, (size_t)first);
	*authc = str_mk(message.p + first + 1, (size_t)(second - first - 1));
	*password = str_skip(message, (size_t)second + 1);
	if (authz->n == 0)
		*authz = *authc;
	return authc->n > 0;
}
