/* in_relay.c - who may send to whom: the peer is in relay_hosts; or the policy says of the sender's domain
 * that this peer, or whoever has logged in, may send from it; or of the recipient's domain that it takes mail
 * from anybody. Nobody else sends anything, except reports to a domain that has them logged.
 *
 * What the policy says of a domain (get_listener_domain, kumo.make_listener_domain) is kept within the
 * session, for the domain's ttl, and until the client has done something that may change it. Domains are
 * asked for in lower case. */
#include "smtp/in_impl.h"

#include "policy/value.h"

/* --- kumo.make_listener_domain --- */

const char *const in_report_words[] = {"Ignore", "LogThenDrop", "LogThenRelay", NULL};

/* Booleans are from before there were words. */
static int in_report_mode_parse(const json_t *v, void *field)
{
	int *mode = field;
	if (json_is_boolean(v)) {
		*mode = json_is_true(v) ? IN_REPORT_LOG_THEN_RELAY : IN_REPORT_IGNORE;
		return 0;
	}
	if (!json_is_string(v)) {
		struct buf what = BUF_INIT;
		value_describe(v, false, &what);
		err_set(ERR_INVALID,
			"invalid type: %s, expected a boolean "
			"or one of `Ignore`, `LogThenDrop`, `LogThenRelay`",
			what.p);
		buf_fini(&what);
		return -1;
	}
	for (int i = 0; in_report_words[i] != NULL; i++) {
		if (strcmp(json_string_value(v), in_report_words[i]) == 0) {
			*mode = i;
			return 0;
		}
	}
	param_err_variant(json_string_value(v), in_report_words);
	return -1;
}

static void in_report_mode_dump(const void *field, json_t **out)
{
	*out = json_string(in_report_words[*(const int *)field]);
}

#define IN_REPORT_MODE .parse = in_report_mode_parse, .dump = in_report_mode_dump, .def = "\"Ignore\""

static const struct param in_domain_fields[] = {
	PARAM_BOOL(in_domain, relay_to, .def = "false", .doc = "Anybody may send to this domain."),
	PARAM_CUSTOM(in_domain, log_oob, IN_REPORT_MODE,
		     .doc = "What becomes of bounce reports (RFC 3464) for this domain."),
	PARAM_CUSTOM(in_domain, log_arf, IN_REPORT_MODE,
		     .doc = "What becomes of feedback reports (RFC 5965) for this domain."),
	PARAM_CIDRS(in_domain, relay_from, .doc = "Peers that may send from this domain to anybody."),
	PARAM_STRS(in_domain, relay_from_authz,
		   .doc = "Logins (authorization identities) that may send from this domain to anybody."),
	PARAM_DUR(in_domain, ttl, .def = "60s", .doc = "How long this holds within a connection."),
	{0}};
const struct param_schema in_domain_schema = {"ListenerDomain", in_domain_fields, sizeof(struct in_domain),
					      NULL};

/* --- the answers of a session --- */

static void in_domain_drop(struct in_domain_entry *d)
{
	free(d->name);
	param_object_unref(d->object);
	*d = (struct in_domain_entry){0};
}

void in_relay_forget(struct in_session *s)
{
	for (size_t i = 0; i < IN_DOMAINS; i++)
		in_domain_drop(&s->domain[i]);
}

static struct in_domain_entry *in_domain_known(struct in_session *s, str_t name)
{
	for (size_t i = 0; i < IN_DOMAINS; i++)
		if (s->domain[i].name != NULL && str_eq(str_of(s->domain[i].name), name) &&
		    !mono_is_past(s->domain[i].expires))
			return &s->domain[i];
	return NULL;
}

static void in_lower(struct buf *out, str_t s)
{
	for (size_t i = 0; i < s.n; i++)
		buf_add_c(out, s.p[i] >= 'A' && s.p[i] <= 'Z' ? (char)(s.p[i] | 0x20) : s.p[i]);
}

static const struct in_domain *in_domain_of(const struct param_object *o)
{
	return (const void *)o->data;
}

/** *d: what the policy says of the domain, valid until the next call; NULL: nothing. */
static enum in_verdict in_domain_get(struct in_session *s, str_t domain, const struct in_domain **d)
{
	struct buf name = BUF_INIT;
	struct param_object *o;
	enum in_verdict verdict = IN_ACCEPTED;
	*d = NULL;
	if (!policy_has_handler("get_listener_domain"))
		return IN_ACCEPTED;
	in_lower(&name, domain);
	struct in_domain_entry *e = in_domain_known(s, buf_str(&name));
	if (e == NULL) {
		verdict = in_event_listener_domain(s, buf_str(&name), &o);
		if (verdict == IN_ACCEPTED) {
			e = &s->domain[s->next_domain++ % IN_DOMAINS];
			in_domain_drop(e);
			e->name = name.n > 0 ? str_dup(buf_str(&name)) : xstrdup("");
			e->object = o;
			e->expires = mono_after(o != NULL ? in_domain_of(o)->ttl : dur_s(60));
		}
	}
	if (e != NULL && e->object != NULL)
		*d = in_domain_of(e->object);
	buf_fini(&name);
	return verdict;
}

/* --- deciding --- */

static str_t in_domain_part(str_t address)
{
	struct mailbox box;
	if (mailbox_parse(address, &box) != 0) {
		err_clear();
		return STR("");
	}
	return box.domain;
}

static bool in_may_send_from(struct in_session *s, const struct in_domain *d)
{
	struct buf scratch = BUF_INIT;
	str_t authz;
	bool may = cidr_set_has(&d->relay_from, &s->peer);
	if (!may && s->is_authenticated && meta_get_str(&s->conn.meta, STR("authz_id"), &scratch, &authz))
		for (size_t i = 0; i < d->relay_from_authz.n && !may; i++)
			may = str_eq(str_of(d->relay_from_authz.v[i]), authz);
	buf_fini(&scratch);
	return may;
}

str_t in_relay_address(const struct in_session *s, str_t recipient, struct buf *out)
{
	if (!str_ieq(recipient, STR("postmaster")))
		return recipient;
	buf_printf(out, STR_FMT "@%s", STR_ARG(recipient), s->set.hostname);
	return buf_str(out);
}

enum in_verdict in_relay_decide(struct in_session *s, str_t sender, str_t recipient, bool wants_reports,
				struct in_disposition *out)
{
	const struct in_domain *d;
	*out = (struct in_disposition){.is_relayed = cidr_set_has(s->set.relay_hosts, &s->peer)};
	if (!out->is_relayed) {
		if (in_domain_get(s, in_domain_part(sender), &d) != IN_ACCEPTED)
			return IN_REFUSED;
		out->is_relayed = d != NULL && in_may_send_from(s, d);
	}
	if (out->is_relayed && !wants_reports)
		return IN_ACCEPTED;
	if (in_domain_get(s, in_domain_part(recipient), &d) != IN_ACCEPTED)
		return IN_REFUSED;
	if (d == NULL)
		return IN_ACCEPTED;
	out->is_relayed = out->is_relayed || d->relay_to;
	out->log_arf = (enum in_report_mode)d->log_arf;
	out->log_oob = (enum in_report_mode)d->log_oob;
	return IN_ACCEPTED;
}
