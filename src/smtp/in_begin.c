/* in_begin.c - how a session begins, and begins again after XCLIENT: is there room, and does the service
 * take mail at all; a PROXY header, if the parameters for this peer want one; the parameters for the
 * addresses that hold from then on, and what the policy makes of them; TLS, where it is implicit; the
 * policy's word on the connection; the banner. */
#include "smtp/in_impl.h"

#include "net/proxy.h"

#include <stdio.h>

/* --- parameters --- */

static void in_set_addresses(struct in_session *s)
{
	char text[NET_ADDR_STRLEN];
	meta_set_str(&s->conn.meta, STR("received_from"), str_of(net_addr_fmt(&s->peer, text)));
	meta_set_str(&s->conn.meta, STR("received_via"), str_of(net_addr_fmt(&s->local, text)));
	s->conn.who.peer = s->peer;
}

/* What the parameters have set for other addresses does not hold for these. */
static void in_drop_parameter_meta(struct in_session *s)
{
	str_t key, value;
	for (uint32_t i = 0; meta_at(&s->param_meta, i, &key, &value); i++)
		meta_remove(&s->conn.meta, key);
	meta_fini(&s->param_meta);
}

static void in_session_set_base(struct in_session *s)
{
	param_object_unref(s->dynamic);
	s->dynamic = NULL;
	in_drop_parameter_meta(s);
	in_settings_init(&s->set, s->l->params, s->l->machine_hostname, &s->peer, &s->local, &s->param_meta);
	meta_copy(&s->conn.meta, &s->param_meta);
	in_set_addresses(s);
	meta_set_str(&s->conn.meta, STR("hostname"), str_of(s->set.hostname));
	in_relay_forget(s);
}

/* Evaluates the parameters for the addresses of the session, and asks the policy for more. */
static enum in_go in_session_configure(struct in_session *s)
{
	in_session_set_base(s);
	if (in_event_dynamic_parameters(s, &s->dynamic) != IN_ACCEPTED)
		return IN_END;
	if (s->dynamic != NULL) {
		in_settings_apply(&s->set, (const void *)s->dynamic->data, &s->peer, &s->local,
				  &s->param_meta);
		meta_copy(&s->conn.meta, &s->param_meta);
	}
	meta_set_str(&s->conn.meta, STR("hostname"), str_of(s->set.hostname));
	return IN_GO;
}

/* The addresses before they were replaced; the first ones count. */
static void in_keep_original_addresses(struct in_session *s)
{
	str_t from, via, any;
	if (meta_get_json(&s->conn.meta, STR("orig_received_from"), &any))
		return;
	if (meta_get_json(&s->conn.meta, STR("received_from"), &from))
		meta_set_json(&s->conn.meta, STR("orig_received_from"), from);
	if (meta_get_json(&s->conn.meta, STR("received_via"), &via))
		meta_set_json(&s->conn.meta, STR("orig_received_via"), via);
}

/* --- the beginning --- */

static enum in_go in_greet(struct in_session *s)
{
	in_reply(s, 220, "%s %s", s->set.hostname, s->set.banner);
	return s->is_ending ? IN_END : IN_GO;
}

/* False: denied. With implicit TLS there is no way to say why. */
static bool in_is_admitted(struct in_session *s)
{
	const char *why = in_why_not(), *what_then = ". Try later";
	bool is_full = listener_n_connections(s->l->listener) > (size_t)s->l->params->max_connections;
	if (in_is_stopping(s))
		why = IN_WHY_STOPPING;
	if (!is_full && why == NULL)
		return true;
	metric_inc(in_metrics()->denied);
	s->is_ending = true;
	if (s->set.implicit_tls)
		return false;
	if (is_full) { /* says so at no expense */
		buf_printf(&s->out, "421 4.3.2 %s too many concurrent sessions. Try later\r\n",
			   s->set.hostname);
		return false;
	}
	if (strcmp(why, IN_WHY_STOPPING) == 0)
		what_then = "";
	else if (strcmp(why, IN_WHY_STARTING) == 0)
		what_then = ". Try again soon!";
	buf_clear(&s->shown);
	in_reply(s, 421, "4.3.2 %s %s%s", s->set.hostname, why, what_then);
	return false;
}

/* IN_END without a word: who does not send the header is not who was expected. */
static enum in_go in_read_proxy(struct in_session *s)
{
	s->is_waiting = true;
	int rc = proxy_read(s->st, mono_after(s->set.client_timeout));
	s->is_waiting = false;
	if (rc != 0) {
		log_debug(IN_LOG, "%s", err_text());
		err_clear();
		return IN_END;
	}
	if (net_addr_eq_ip(&s->peer, stream_peer(s->st)) &&
	    net_addr_port(&s->peer) == net_addr_port(stream_peer(s->st)))
		return IN_GO; /* the proxy comes for itself */
	in_keep_original_addresses(s);
	s->peer = *stream_peer(s->st);
	s->local = *stream_local(s->st);
	return IN_GO;
}

static enum in_go in_start_implicit_tls(struct in_session *s)
{
	struct tls_source *source = in_tls_get(s->l, &s->set, mono_after(s->set.client_timeout));
	enum in_go go = IN_END;
	if (source == NULL) {
		log_error(IN_LOG, "a connection is closed: %s", err_text());
		err_clear();
		return IN_END;
	}
	s->is_waiting = true;
	go = in_tls_start(s, source, TLS_BUFFERED_FEED);
	s->is_waiting = false;
	tls_source_unref(source);
	return go == IN_GO ? IN_GO : IN_END;
}

/* For whoever looks at the fibers: whose connection it is. */
static void in_session_set_name(const struct in_session *s)
{
	char addr[NET_ADDR_STRLEN], name[NET_ADDR_STRLEN + 8];
	snprintf(name, sizeof(name), "smtp %s", net_addr_fmt(&s->peer, addr));
	fiber_set_name(name);
}

enum in_go in_session_begin(struct in_session *s)
{
	in_session_set_name(s);
	meta_set_str(&s->conn.meta, STR("reception_protocol"), STR("ESMTP"));
	in_session_set_base(s);
	if (!in_is_admitted(s))
		return IN_END;
	bool is_proxied = s->set.require_proxy_protocol;
	if (is_proxied && in_read_proxy(s) != IN_GO)
		return IN_END;
	in_session_set_name(s);
	if (in_is_seen())
		in_see(s, &(struct in_seen){.kind = IN_SIGHT_CONNECTED});
	if (in_session_configure(s) != IN_GO)
		return IN_END;
	if (!is_proxied && s->set.require_proxy_protocol) { /* the policy says so for this connection */
		if (in_read_proxy(s) != IN_GO)
			return IN_END;
		in_session_set_name(s);
		if (in_session_configure(s) != IN_GO)
			return IN_END;
	}
	if (s->set.implicit_tls && in_start_implicit_tls(s) != IN_GO)
		return IN_END;
	if (in_event_connection_accepted(s) != IN_ACCEPTED)
		return IN_END;
	return in_greet(s);
}

enum in_go in_session_begin_as(struct in_session *s, const struct in_xclient *x)
{
	uint16_t port = net_addr_port(&s->peer), local_port = net_addr_port(&s->local);
	in_keep_original_addresses(s);
	s->peer = x->addr.len != 0 ? x->addr : s->peer;
	s->local = x->dest.len != 0 ? x->dest : s->local;
	net_addr_set_port(&s->peer, x->port >= 0 ? (uint16_t)x->port : port);
	net_addr_set_port(&s->local, x->dest_port >= 0 ? (uint16_t)x->dest_port : local_port);
	in_session_forget(s);
	in_session_set_name(s);
	return in_session_configure(s) == IN_GO ? in_greet(s) : IN_END;
}
