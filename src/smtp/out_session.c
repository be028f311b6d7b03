/* out_session.c - a delivery session: a plan of addresses, one connection at a time, messages until there are
 * no more, QUIT. The dialogue reads top to bottom in out_run; each message ends in exactly one report
 * (deliverer.h). */
#include "smtp/out.h"
#include "smtp/out_impl.h"

struct out_session {
	struct session *s;
	struct out_plan plan;
	size_t next; /* candidate to try next */
	struct out_conn conn;
	struct buf failures; /* what went wrong with the candidates so far */
	int64_t n_tried;     /* messages on this connection */
	bool has_tried;	     /* a message, on any connection */
};

/** Connects to the next candidate that answers. -1: none is left (failures says why), or ERR_CANCELLED, also
 * when we are stopping. */
static int out_connect(struct out_session *o)
{
	while (o->next < o->plan.n) {
		if (session_is_stopping(o->s)) {
			err_set(ERR_CANCELLED, "no new connections while stopping");
			return -1;
		}
		const struct out_candidate *to = &o->plan.v[o->next++];
		if (out_conn_open(&o->conn, to) == 0) {
			o->n_tried = 0;
			session_note_connected(o->s);
			return 0;
		}
		if (err_is(ERR_CANCELLED))
			return -1;
		buf_printf(&o->failures, "%s%s", o->failures.n > 0 ? ", " : "", err_text());
		err_clear();
	}
	err_set(ERR_CONNECT, "no candidate host is left");
	return -1;
}

/** No candidate answered: m fails transiently, or the whole
 * queue does when that happened too often in a row. */
static void out_report_unreachable(struct out_session *o, struct message *m)
{
	struct buf text = BUF_INIT;
	bool is_too_many = session_note_plan_failed(o->s);
	buf_printf(&text, "KumoMTA internal: failed to connect to any candidate hosts: " STR_FMT,
		   STR_ARG(buf_str(&o->failures)));
	session_done_all(o->s, m, &(struct smtp_response){.code = 400, .content = buf_str(&text)}, NULL);
	if (is_too_many)
		session_fail_queue(
			o->s, NULL,
			&(struct smtp_response){
				.code = 451,
				.enhanced = {4, 4, 1},
				.content = STR("bulk delay of ready queue: "
					       "too many successive connection failures where "
					       "there was no answer from any hosts listed in MX")});
	buf_fini(&text);
}

/** Connects for m, or gives m up: False. Where the session has delivered before, m is not charged: that a
 * further candidate does not answer says nothing of those that do, which a new session begins with. */
static bool out_connect_for(struct out_session *o, struct message *m)
{
	if (out_connect(o) == 0)
		return true;
	bool is_cancelled = err_is(ERR_CANCELLED);
	err_clear();
	if (is_cancelled || o->has_tried)
		session_return(o->s, m);
	else
		out_report_unreachable(o, m);
	return false;
}

/** After a connection was lost: true when the session may go on with another. */
static bool out_may_reconnect(struct out_session *o)
{
	switch (session_path(o->s)->reconnect_strategy) {
	case RECONNECT_SAME_HOST:
		if (o->next > 0)
			o->next--;
		return true;
	case RECONNECT_NEXT_HOST:
		return o->next < o->plan.n;
	default:
		return false;
	}
}

/** Delivers m over the connection that stands; m is always consumed. False: the session is over. */
static bool out_deliver_one(struct out_session *o, struct message *m)
{
	for (;;) {
		const struct egress_path *path = session_path(o->s);
		bool is_retry_wanted = path->try_next_host_on_transport_error &&
				       path->reconnect_strategy == RECONNECT_NEXT_HOST && o->next < o->plan.n;
		o->n_tried++;
		o->has_tried = true;
		switch (out_deliver(&o->conn, m, is_retry_wanted)) {
		case OUT_DONE:
			return true;
		case OUT_CANCELLED:
			out_conn_close(&o->conn);
			return false;
		case OUT_BROKEN:
			out_conn_close(&o->conn);
			return out_may_reconnect(o);
		case OUT_STALE:
			out_conn_close(&o->conn);
			if (!out_may_reconnect(o)) {
				session_return(o->s, m);
				return false;
			}
			if (!out_connect_for(o, m))
				return false;
			continue;
		case OUT_TRANSPORT:
			out_conn_close(&o->conn);
			if (out_connect(o) == 0)
				continue;
			if (err_is(ERR_CANCELLED)) {
				err_clear();
				session_return(o->s, m);
			} else {
				out_report_unreachable(o, m);
			}
			return false;
		}
	}
}

/** A kept connection must be silent: anything to read is a goodbye or an end. False: it is gone. */
static bool out_check_alive(struct out_session *o)
{
	if (o->conn.st == NULL || o->n_tried == 0 || !stream_has_input(o->conn.st))
		return true;
	out_conn_close(&o->conn);
	return false;
}

static void out_run(struct session *s)
{
	struct out_session o = {.s = s, .conn.s = s};
	struct smtp_response r;
	struct buf text = BUF_INIT;
	struct message *m = session_next(s, DUR_ZERO);
	if (m == NULL)
		goto out;
	if (out_plan_make(s, &o.plan, &r, &text) != 0) {
		if (r.code != 0)
			session_fail_queue(s, m, &r);
		else
			session_return(s, m);
		goto out;
	}
	while (m != NULL) {
		if (!out_check_alive(&o) && !out_may_reconnect(&o)) {
			session_return(s, m); /* not charged: it was never sent */
			break;
		}
		if (o.conn.st == NULL && !out_connect_for(&o, m))
			break;
		if (!out_deliver_one(&o, m))
			break;
		if (o.n_tried >= session_path(s)->max_deliveries_per_connection)
			break;
		m = session_next(s, session_path(s)->idle_timeout);
	}
	out_conn_quit(&o.conn);
out:
	out_conn_fini(&o.conn);
	out_plan_fini(&o.plan);
	buf_fini(&o.failures);
	buf_fini(&text);
}

const struct deliverer smtp_deliverer = {.protocol = "smtp_client", .record_name = "ESMTP", .run = out_run};
