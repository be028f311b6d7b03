/* authorize.c - the way of a request to its permission: the peer's address and the
 * trusted group, the names in a client certificate that was verified, then a login if
 * the request has one, then the access control lists with the method as privilege.
 *
 * Who sends a wrong credential must learn it, whatever the address or the path would allow without: 401. A
 * refusal by the lists is 401 as long as a login could help, which is where there was none, and 403 after a
 * good one, by password, token or certificate. A method that the path does not have is for a peer that is
 * known, by its address or a login, 405 rather than the advice to log in, unless a rule speaks of it; the
 * router says it, and has put the methods that there are beside either answer.
 *
 * Texts for clients name who and what, never how a credential looked; what failed inside is for the
 * diagnostic log only. */
#include "api/authorize.h"

#include "aaa/access.h"
#include "aaa/login.h"
#include "base/err.h"
#include "net/tls.h"
#include "policy/policy.h"

#define TRUSTED_GROUP STR("kumomta:http-listener-trusted-ip")

/* Who the client's certificate says it is: the name of its subject, and its alternative names. Each says what
 * it is, as OpenSSL writes them, so that no certificate can bear the name of a user who logs in. */
static void authorize_certificate(struct http_request *r, struct auth_info *who)
{
	const struct tls_info *tls = r->stream != NULL ? stream_tls_info(r->stream) : NULL;
	if (tls == NULL || !tls->is_peer_verified)
		return;
	for (size_t i = 0; i < tls->n_peer_names; i++) {
		static const char *const prefix[] = {[TLS_NAME_SUBJECT] = "",
						     [TLS_NAME_DNS] = "DNS:",
						     [TLS_NAME_EMAIL] = "email:",
						     [TLS_NAME_URI] = "URI:",
						     [TLS_NAME_IP] = "IP:"};
		const struct tls_name *n = &tls->peer_name[i];
		if (n->kind != TLS_NAME_SUBJECT || str_starts(str_of(n->text), STR("CN=")))
			auth_info_add_identity(
				who, str_of(arena_printf(r->arena, "%s%s", prefix[n->kind], n->text)),
				AUTH_TLS_CERTIFICATE);
	}
}

static struct auth_info *authorize_peer(struct http_request *r)
{
	struct auth_info *who = arena_alloc(r->arena, sizeof(*who));
	auth_info_init(who, r->peer, r->arena);
	authorize_certificate(r, who);
	if (http_request_peer_is_trusted(r))
		auth_info_add_group(who, TRUSTED_GROUP);
	r->auth = who;
	return who;
}

const struct auth_info *api_request_who(struct http_request *r)
{
	return r->auth != NULL ? r->auth : authorize_peer(r);
}

/* Says how one can log in here: with a token, too, when the policy knows any. */
static int authorize_ask_for_login(struct http_request *r, struct http_response *a)
{
	bool has_tokens = policy_has_handler("http_server_validate_auth_bearer");
	http_response_add_header(r, a, STR("www-authenticate"),
				 has_tokens ? STR("Basic realm=\"cirrus\", Bearer realm=\"cirrus\"")
					    : STR("Basic realm=\"cirrus\""));
	return -1;
}

/* The policy failed; the diagnostic log has been told. */
static int authorize_fail(struct http_response *a)
{
	err_clear();
	http_response_text(a, 500, "try again later");
	return -1;
}

/* --- logins --- */

static size_t authorize_count(const struct http_request *r, str_t name)
{
	size_t n = 0;
	for (size_t i = 0; i < r->n_headers; i++)
		n += str_ieq(r->header[i].name, name);
	return n;
}

static int authorize_login(struct http_request *r, struct http_response *a, struct auth_info *who,
			   mono_t deadline)
{
	struct credential c;
	const char *why = "there is more than one";
	if (authorize_count(r, STR("authorization")) > 1 ||
	    !credential_parse(http_request_header(r, STR("authorization")), r->arena, &c, &why)) {
		http_response_text(a, 400, "Error: malformed or unsupported Authorization header: %s", why);
		return -1;
	}
	http_request_flush(r);
	int rc = login_check(&c, who, deadline);
	if (rc < 0)
		return authorize_fail(a);
	if (rc == 1)
		return 0;
	if (c.kind == CREDENTIAL_BASIC)
		http_response_text(a, 401, "Authentication Failed: HttpBasicAuth for " STR_FMT,
				   STR_ARG(c.user));
	else
		http_response_text(a, 401, "Authentication Failed: BearerToken");
	return authorize_ask_for_login(r, a);
}

/* --- access --- */

/* "<Unauthenticated>@ ip=ADDR" or "id=[a, b]@ ip=ADDR" */
static void authorize_name(const struct auth_info *who, struct buf *out)
{
	char ip[NET_ADDR_STRLEN];
	if (who->n_identities == 0)
		buf_add_z(out, "<Unauthenticated>");
	else
		buf_add_z(out, "id=[");
	for (size_t i = 0; i < who->n_identities; i++) {
		if (i != 0)
			buf_add_z(out, ", ");
		buf_add_str(out, who->identity[i].identity);
	}
	if (who->n_identities != 0)
		buf_add_c(out, ']');
	buf_printf(out, "@ ip=%s", net_addr_fmt_ip(&who->peer, ip));
}

static int authorize_refuse(struct http_request *r, struct http_response *a, const struct auth_info *who,
			    const struct resource *what, const struct access_result *result,
			    bool is_logged_in)
{
	struct buf name = BUF_INIT;
	authorize_name(who, &name);
	http_response_text(a, is_logged_in ? 403 : 401, STR_FMT " %s " STR_FMT " on " STR_FMT,
			   STR_ARG(buf_str(&name)), result->rule != NULL ? "denied" : "not permitted",
			   STR_ARG(r->method), STR_ARG(what->candidate[0]));
	buf_fini(&name);
	return is_logged_in ? -1 : authorize_ask_for_login(r, a);
}

static int authorize_access(struct http_request *r, struct http_response *a, const struct auth_info *who,
			    bool is_logged_in, mono_t deadline)
{
	struct resource what;
	struct access_result result;
	int rc = -1;
	if (policy_has_handler("get_acl_definition"))
		http_request_flush(r);
	resource_of_path(r->arena, str_of(http_listener_name(r->listener)), r->path, &what);
	if (access_check(&what, who, r->method, &result, deadline) != 0) {
		rc = authorize_fail(a);
		goto out;
	}
	bool is_known = is_logged_in || http_request_peer_is_trusted(r);
	bool is_method_missing = r->route == NULL && result.rule == NULL && is_known;
	if (result.is_allowed || is_method_missing)
		rc = 0;
	else
		rc = authorize_refuse(r, a, who, &what, &result, is_logged_in);
out:
	access_result_fini(&result);
	return rc;
}

static int authorize(struct http_request *r, struct http_response *a, mono_t deadline)
{
	struct auth_info *who = authorize_peer(r);
	bool has_login = authorize_count(r, STR("authorization")) != 0;
	if (has_login && authorize_login(r, a, who, deadline) != 0)
		return -1;
	return authorize_access(r, a, who, has_login || who->n_identities != 0, deadline);
}

void api_authorize_register(void)
{
	http_set_authorizer(authorize);
}
