/* in_params.c - schemas of the listener and of the blocks that override it, and how they are laid over
 * each other: the listener's own fields, then the block for the peer, then the one for our address,
 * and within each block again. What a block does not give stays as it is; `meta` is merged key by key.
 *
 * Blocks are parsed and checked at start, down to the last, and only pointed into by connections. */
#include "smtp/in_params.h"

#include "base/alloc.h"
#include "base/err.h"
#include "mime/header.h"
#include "policy/value.h"

#include <stdlib.h>

enum { IN_BLOCK_DEPTH = 8 }; /* of blocks in blocks */

static const char *const in_batch_words[] = {"BifurcateAlways", "BatchByDomain", NULL};
static const char *const in_endings_words[] = {"Deny", "Allow", "Fix", NULL};

static const struct in_params *in_params_of(const struct param_object *o)
{
	return (const void *)o->data;
}

/* --- trace_headers --- */

static int in_trace_check(void *obj)
{
	const struct in_trace_headers *t = obj;
	if (header_name_is_valid(str_of(t->header_name)))
		return 0;
	err_set(ERR_INVALID,
		"field `header_name`: invalid value: \"%.64s\", expected the name of a header field",
		t->header_name);
	return -1;
}

static const struct param in_trace_fields[] = {
	PARAM_BOOL(in_trace_headers, received_header, .def = "true",
		   .doc = "Add a Received field before smtp_server_message_received."),
	PARAM_BOOL(in_trace_headers, supplemental_header, .def = "true",
		   .doc = "Add the supplemental field after it."),
	PARAM_STR(in_trace_headers, header_name, .def = "X-KumoRef",
		  .doc = "Name of the supplemental field."),
	PARAM_STRS(in_trace_headers, include_meta_names,
		   .doc = "Metadata that the supplemental field carries, for all to read."),
	{0}};
const struct param_schema in_trace_schema = {"TraceHeaders", in_trace_fields, sizeof(struct in_trace_headers),
					     in_trace_check};

static int in_trace_parse(const json_t *v, void *field)
{
	struct param_object *o = param_object_from_nested(&in_trace_schema, v, "trace_headers");
	if (o == NULL)
		return -1;
	*(struct param_object **)field = o;
	return 0;
}

static void in_trace_fini(void *field)
{
	param_object_unref(*(struct param_object **)field);
}

/* --- other fields --- */

static int in_fail_type(const json_t *v, const char *expected)
{
	struct buf what = BUF_INIT;
	value_describe(v, false, &what);
	err_set(ERR_INVALID, "invalid type: %s, expected %s", what.p, expected);
	buf_fini(&what);
	return -1;
}

static int in_meta_parse(const json_t *v, void *field)
{
	if (!json_is_object(v))
		return in_fail_type(v, "a map of metadata");
	*(json_t **)field = json_deep_copy(v);
	return 0;
}

static void in_meta_fini(void *field)
{
	json_decref(*(json_t **)field);
}

/* Blocks are parsed within blocks: how deep this thread is. */
static _Thread_local int in_block_depth;

static void in_blocks_fini(void *field)
{
	struct in_blocks *b = field;
	for (size_t i = 0; i < b->nets.n; i++)
		param_object_unref(b->block[i]);
	free(b->block);
	cidr_set_fini(&b->nets);
}

static int in_blocks_add(struct in_blocks *b, str_t net, const json_t *table)
{
	struct param_object *o = in_block_from_json(table);
	if (o == NULL) {
		err_wrap(STR_FMT, STR_ARG(net));
		return -1;
	}
	if (cidr_set_add(&b->nets, net) != 0) {
		param_object_unref(o);
		return -1;
	}
	b->block = xreallocarray(b->block, b->nets.n, sizeof(*b->block));
	b->block[b->nets.n - 1] = o;
	return 0;
}

static int in_blocks_parse(const json_t *v, void *field)
{
	struct in_blocks b = {{0}};
	json_t *w = (json_t *)(uintptr_t)v; /* jansson's iterators want it so */
	if (!json_is_object(v))
		return in_fail_type(v, "a map from networks to parameters");
	if (in_block_depth == IN_BLOCK_DEPTH) {
		err_set(ERR_INVALID, "peer and via blocks are nested more than %d deep", IN_BLOCK_DEPTH);
		return -1;
	}
	in_block_depth++;
	int rc = 0;
	for (void *it = json_object_iter(w); it != NULL && rc == 0; it = json_object_iter_next(w, it))
		rc = in_blocks_add(&b, str_mk(json_object_iter_key(it), json_object_iter_key_len(it)),
				   json_object_iter_value(it));
	in_block_depth--;
	if (rc != 0) {
		in_blocks_fini(&b);
		return -1;
	}
	*(struct in_blocks *)field = b;
	return 0;
}

/* --- the schemas --- */

static int in_check_text(const char *name, const char *text)
{
	for (const char *p = text; p != NULL && *p != 0; p++) {
		if ((unsigned char)*p >= 0x20 && *p != 0x7f)
			continue;
		err_set(ERR_INVALID, "field `%s`: control characters are not allowed", name);
		return -1;
	}
	return 0;
}

static int in_check_dur(const char *name, dur_t d, bool is_block)
{
	if (d.ns > 0 || (is_block && d.ns < 0))
		return 0;
	err_set(ERR_INVALID, "field `%s`: invalid value: 0s, expected a duration of more than nothing", name);
	return -1;
}

static int in_params_check(const struct in_params *p, bool is_block)
{
	if (in_check_text("banner", p->banner) != 0 || in_check_text("hostname", p->hostname) != 0 ||
	    in_check_dur("client_timeout", p->client_timeout, is_block) != 0 ||
	    in_check_dur("data_processing_timeout", p->data_processing_timeout, is_block) != 0)
		return -1;
	if (p->hostname != NULL && (p->hostname[0] == 0 || strchr(p->hostname, ' ') != NULL)) {
		err_set(ERR_INVALID, "field `hostname`: invalid value: \"%s\", expected the name of a host",
			p->hostname);
		return -1;
	}
	if (p->tls_private_key.kind != KEYSOURCE_NONE && p->tls_certificate.kind == KEYSOURCE_NONE) {
		err_set(ERR_INVALID, "tls_private_key is given without tls_certificate");
		return -1;
	}
	return 0;
}

static int in_listener_check(void *obj)
{
	return in_params_check(obj, false);
}
static int in_block_check(void *obj)
{
	return in_params_check(obj, true);
}

#define IN_KEYSOURCE \
	.parse = keysource_param_parse, .fini = keysource_param_fini, .dump = keysource_param_dump
#define IN_BLOCKS .parse = in_blocks_parse, .fini = in_blocks_fini

/* Without defaults, as a block has them. */
static const struct param in_block_fields[] = {
	PARAM_BOOL(in_params, allow_xclient, .doc = "Peers may say, by XCLIENT, on whose behalf they come."),
	PARAM_STR(in_params, banner, .doc = "Text of the greeting, behind the hostname."),
	PARAM_ENUM(in_params, batch_handling, in_batch_words,
		   .doc = "How recipients are put together into messages."),
	PARAM_DUR(in_params, client_timeout,
		  .doc = "How long a client may say nothing; also for a TLS handshake."),
	PARAM_INT(in_params, data_buffer_size, .min = 512, .max = 16 << 20,
		  .doc = "Bytes that are read at a time of a message."),
	PARAM_DUR(in_params, data_processing_timeout,
		  .doc = "After it, a message that was received is refused for now."),
	PARAM_BOOL(in_params, deferred_queue,
		   .doc = "Take messages as they are and process them from a queue of their own."),
	PARAM_BOOL(in_params, deferred_spool,
		   .doc = "Do not store a message before its first delivery has failed."),
	PARAM_STR(in_params, hostname, .doc = "Name of this service; the machine's when not given."),
	PARAM_BOOL(in_params, implicit_tls, .doc = "TLS from the first byte, as on port 465."),
	PARAM_ENUM(in_params, invalid_line_endings, in_endings_words,
		   .doc = "What becomes of a CR or LF that is not part of a CRLF."),
	PARAM_INT(in_params, line_length_hard_limit, .min = 1, .max = 1 << 30,
		  .doc = "Longest line of a message, without its end."),
	PARAM_INT(in_params, max_message_size, .min = 1, .max = 1 << 30, .doc = "Largest message in bytes."),
	PARAM_INT(in_params, max_messages_per_connection, .min = 1, .max = INT32_MAX,
		  .doc = "Recipients of one connection, all told."),
	PARAM_INT(in_params, max_recipients_per_message, .min = 1, .max = INT32_MAX,
		  .doc = "Recipients of one transaction."),
	PARAM_CUSTOM(in_params, meta, .parse = in_meta_parse, .fini = in_meta_fini,
		     .doc = "Metadata that connections begin with."),
	PARAM_CUSTOM(in_params, peer, IN_BLOCKS, .doc = "Other parameters by the peer's address."),
	PARAM_CIDRS(in_params, relay_hosts, .doc = "Peers that may send to anybody."),
	PARAM_BOOL(in_params, require_proxy_protocol,
		   .doc = "The connection begins with a PROXY header, version 1 or 2."),
	PARAM_CUSTOM(in_params, tls_certificate, IN_KEYSOURCE,
		     .doc = "Certificate chain in PEM; self-signed when not given."),
	PARAM_CUSTOM(in_params, tls_private_key, IN_KEYSOURCE,
		     .doc = "Its private key; by default it is looked for in tls_certificate."),
	PARAM_CUSTOM(in_params, tls_required_client_ca, IN_KEYSOURCE,
		     .doc = "CAs by which a client's certificate is verified."),
	PARAM_CUSTOM(in_params, trace_headers, .parse = in_trace_parse, .fini = in_trace_fini,
		     .doc = "Fields that are added to a message."),
	PARAM_CUSTOM(in_params, via, IN_BLOCKS,
		     .doc = "Other parameters by the address of ours that the peer came to."),
	{0}};
const struct param_schema in_block_schema = {"EsmtpListenerOverrides", in_block_fields,
					     sizeof(struct in_params), in_block_check};

static const struct param in_listener_fields[] = {
	PARAM_CUSTOM(in_params, listen, .parse = listen_param_parse, .fini = listen_param_fini,
		     .dump = listen_param_dump, .def = "\"127.0.0.1:2025\"",
		     .doc = "Address and port to listen on; port 0 takes a free one. "
			    "Or unix:/path, or fd:NAME for a socket that systemd hands down; "
			    "who has no address of his own there counts as 127.0.0.1."),
	PARAM_CUSTOM(in_params, listen_mode, .parse = listen_param_parse_mode, .def = "\"0660\"",
		     .doc = "Permissions of the socket of unix:/path, in octal."),
	PARAM_STR(in_params, hostname, .doc = "Name of this service; the machine's when not given."),
	PARAM_CIDRS(in_params, relay_hosts, .def = "127.0.0.1,::1", .doc = "Peers that may send to anybody."),
	PARAM_STR(in_params, banner, .def = "KumoMTA", .doc = "Text of the greeting, behind the hostname."),
	PARAM_CUSTOM(in_params, tls_certificate, IN_KEYSOURCE,
		     .doc = "Certificate chain in PEM; self-signed when not given."),
	PARAM_CUSTOM(in_params, tls_private_key, IN_KEYSOURCE,
		     .doc = "Its private key; by default it is looked for in tls_certificate."),
	PARAM_CUSTOM(in_params, tls_required_client_ca, IN_KEYSOURCE,
		     .doc = "CAs by which a client's certificate is verified."),
	PARAM_BOOL(in_params, implicit_tls, .def = "false",
		   .doc = "TLS from the first byte, as on port 465."),
	PARAM_BOOL(in_params, deferred_spool, .def = "false",
		   .doc = "Do not store a message before its first delivery has failed."),
	PARAM_BOOL(in_params, deferred_queue, .def = "false",
		   .doc = "Take messages as they are and process them from a queue of their own."),
	PARAM_CUSTOM(in_params, trace_headers, .parse = in_trace_parse, .fini = in_trace_fini, .def = "{}",
		     .doc = "Fields that are added to a message."),
	PARAM_DUR(in_params, client_timeout, .def = "60s",
		  .doc = "How long a client may say nothing; also for a TLS handshake."),
	PARAM_DUR(in_params, data_processing_timeout, .def = "300s",
		  .doc = "After it, a message that was received is refused for now."),
	PARAM_INT(in_params, data_buffer_size, .min = 512, .max = 16 << 20, .def = "131072",
		  .doc = "Bytes that are read at a time of a message."),
	PARAM_ENUM(in_params, invalid_line_endings, in_endings_words, .def = "Deny",
		   .doc = "What becomes of a CR or LF that is not part of a CRLF."),
	PARAM_INT(in_params, line_length_hard_limit, .min = 1, .max = 1 << 30, .def = "998",
		  .doc = "Longest line of a message, without its end."),
	PARAM_INT(in_params, max_message_size, .min = 1, .max = 1 << 30, .def = "20971520",
		  .doc = "Largest message in bytes."),
	PARAM_INT(in_params, max_messages_per_connection, .min = 1, .max = INT32_MAX, .def = "10000",
		  .doc = "Recipients of one connection, all told."),
	PARAM_INT(in_params, max_recipients_per_message, .min = 1, .max = INT32_MAX, .def = "1024",
		  .doc = "Recipients of one transaction."),
	PARAM_INT(in_params, max_connections, .min = 1, .max = 1000000, .def = "32768",
		  .doc = "Connections at a time; a further one is answered 421."),
	PARAM_ENUM(in_params, batch_handling, in_batch_words, .def = "BifurcateAlways",
		   .doc = "How recipients are put together into messages."),
	PARAM_BOOL(in_params, allow_xclient, .def = "false",
		   .doc = "Peers may say, by XCLIENT, on whose behalf they come."),
	PARAM_BOOL(in_params, require_proxy_protocol, .def = "false",
		   .doc = "The connection begins with a PROXY header, version 1 or 2."),
	PARAM_CUSTOM(in_params, meta, .parse = in_meta_parse, .fini = in_meta_fini,
		     .doc = "Metadata that connections begin with."),
	PARAM_CUSTOM(in_params, peer, IN_BLOCKS, .doc = "Other parameters by the peer's address."),
	PARAM_CUSTOM(in_params, via, IN_BLOCKS,
		     .doc = "Other parameters by the address of ours that the peer came to."),
	{0}};
const struct param_schema in_listener_schema = {"EsmtpListenerParams", in_listener_fields,
						sizeof(struct in_params), in_listener_check};

struct param_object *in_block_from_json(const json_t *table)
{
	struct param_object *o = param_object_from_nested(&in_block_schema, table, NULL);
	if (o == NULL)
		return NULL;
	struct in_params *p = (void *)o->data;
#define X(name)                                                                                    \
	if (!json_is_null(json_object_get(table, #name)) && json_object_get(table, #name) != NULL) \
		p->given |= UINT32_C(1) << IN_FIELD_##name;
	IN_FIELDS(X)
#undef X
	return o;
}

/* --- laying them over each other --- */

static void in_settings_add_meta(struct meta *meta, json_t *values)
{
	struct buf text = BUF_INIT;
	for (void *it = json_object_iter(values); it != NULL; it = json_object_iter_next(values, it)) {
		buf_clear(&text);
		value_write_json(json_object_iter_value(it), false, &text);
		meta_set_json(meta, str_mk(json_object_iter_key(it), json_object_iter_key_len(it)),
			      buf_str(&text));
	}
	buf_fini(&text);
}

static void in_settings_take(struct in_settings *s, const struct in_params *p, uint32_t given)
{
#define HAS(name) ((given >> IN_FIELD_##name & 1) != 0)
#define TAKE(name, cast) \
	if (HAS(name))   \
		s->name = (cast)p->name;
	TAKE(allow_xclient, bool)
	TAKE(banner, const char *)
	TAKE(batch_handling, enum in_batch_handling)
	TAKE(data_buffer_size, size_t)
	TAKE(deferred_queue, bool)
	TAKE(deferred_spool, bool)
	TAKE(hostname, const char *)
	TAKE(implicit_tls, bool)
	TAKE(invalid_line_endings, enum in_line_endings)
	TAKE(line_length_hard_limit, size_t)
	TAKE(max_message_size, size_t)
	TAKE(max_messages_per_connection, size_t)
	TAKE(max_recipients_per_message, size_t)
	TAKE(require_proxy_protocol, bool)
#undef TAKE
	if (HAS(client_timeout))
		s->client_timeout = p->client_timeout;
	if (HAS(data_processing_timeout))
		s->data_processing_timeout = p->data_processing_timeout;
	if (HAS(relay_hosts))
		s->relay_hosts = &p->relay_hosts;
	if (HAS(tls_certificate)) { /* whose key is never another one's */
		s->tls_certificate = &p->tls_certificate;
		s->tls_private_key = &p->tls_private_key;
	}
	if (HAS(tls_required_client_ca))
		s->tls_required_client_ca = &p->tls_required_client_ca;
	if (HAS(trace_headers))
		s->trace = (const void *)p->trace_headers->data;
#undef HAS
}

static void in_settings_apply_blocks(struct in_settings *s, const struct in_params *p,
				     const struct net_addr *peer, const struct net_addr *local,
				     struct meta *meta)
{
	ptrdiff_t i = cidr_set_best(&p->peer.nets, peer);
	if (i >= 0)
		in_settings_apply(s, in_params_of(p->peer.block[i]), peer, local, meta);
	i = cidr_set_best(&p->via.nets, local);
	if (i >= 0)
		in_settings_apply(s, in_params_of(p->via.block[i]), peer, local, meta);
}

void in_settings_apply(struct in_settings *s, const struct in_params *block, const struct net_addr *peer,
		       const struct net_addr *local, struct meta *meta)
{
	in_settings_take(s, block, block->given);
	in_settings_add_meta(meta, block->meta);
	in_settings_apply_blocks(s, block, peer, local, meta);
}

static void in_settings_base(struct in_settings *s, const struct in_params *base,
			     const char *machine_hostname)
{
	*s = (struct in_settings){0};
	in_settings_take(s, base, UINT32_MAX);
	if (s->hostname == NULL)
		s->hostname = machine_hostname;
}

void in_settings_init(struct in_settings *s, const struct in_params *base, const char *machine_hostname,
		      const struct net_addr *peer, const struct net_addr *local, struct meta *meta)
{
	in_settings_base(s, base, machine_hostname);
	in_settings_add_meta(meta, base->meta);
	in_settings_apply_blocks(s, base, peer, local, meta);
}

static int in_settings_each_block(const struct in_settings *above, const struct in_params *p,
				  in_settings_fn *fn, void *arg)
{
	const struct in_blocks *maps[] = {&p->peer, &p->via};
	for (size_t k = 0; k < ARRAY_SIZE(maps); k++) {
		for (size_t i = 0; i < maps[k]->nets.n; i++) {
			const struct in_params *block = in_params_of(maps[k]->block[i]);
			struct in_settings s = *above;
			in_settings_take(&s, block, block->given);
			if (fn(&s, arg) != 0 || in_settings_each_block(&s, block, fn, arg) != 0)
				return -1;
		}
	}
	return 0;
}

int in_settings_each(const struct in_params *base, const char *machine_hostname, in_settings_fn *fn,
		     void *arg)
{
	struct in_settings s;
	in_settings_base(&s, base, machine_hostname);
	if (fn(&s, arg) != 0)
		return -1;
	return in_settings_each_block(&s, base, fn, arg);
}
