/* in_defer.c - deferred_queue: what the policy does with a message that was received is not done while the
 * client waits, but afterwards, from a queue of our own, by smtp_server_message_deferred_inject
 * (docs/reference/kumo/start_esmtp_listener/deferred_queue.md). As many at a time as the policy gives the
 * queue's egress path connections.
 *
 * Which queue a message is in shows in its metadata, so that a restart finds it there again. If the policy
 * had named one already, that is kept aside meanwhile. The connection that the event sees is made of the
 * message's metadata, and gone afterwards. */
#include "queue/deliverer.h"
#include "smtp/in_impl.h"
#include "smtp/reply.h"

#define IN_DEFERRED_NAME "deferred_smtp_inject.kumomta.internal"
#define IN_DEFERRED_EVENT "smtp_server_message_deferred_inject"
#define IN_RETRY_INTERVAL dur_s(60)

static const str_t in_key_queue = {"queue", 5}, in_key_aside = {"deferred_queue", 14};

void in_defer(struct message *m)
{
	str_t named;
	if (meta_get_json(&m->meta, in_key_queue, &named))
		meta_set_json(&m->meta, in_key_aside, named);
	meta_set_str(&m->meta, in_key_queue, STR(IN_DEFERRED_NAME));
	message_touch(m);
}

static void in_undefer(struct message *m)
{
	str_t named;
	meta_remove(&m->meta, in_key_queue);
	if (meta_get_json(&m->meta, in_key_aside, &named))
		meta_set_json(&m->meta, in_key_queue, named);
	meta_remove(&m->meta, in_key_aside);
	message_touch(m);
}

static int in_deferred_call(struct message *m, mono_t deadline)
{
	struct policy_call c;
	struct in_conn conn;
	int rc = policy_call_begin(&c, IN_DEFERRED_EVENT, deadline);
	if (rc <= 0)
		return rc;
	in_conn_init(&conn, NULL);
	meta_copy(&conn.meta, &m->meta);
	policy_push_message(c.L, m);
	in_conn_push(c.L, &conn);
	rc = policy_call_run(&c, 2, 0, deadline);
	in_conn_release(c.L);
	struct err e = rc < 0 ? err_take() : (struct err){0};
	policy_call_end(&c);
	in_conn_fini(&conn);
	if (rc < 0)
		err_put(e);
	return rc < 0 ? -1 : 0;
}

/** The answer of the policy, or of whatever else went wrong; consumes the error. False: the fiber is to end,
 * and nobody has said anything. */
static bool in_deferred_answer(struct session *s, struct smtp_response *r, struct buf *text)
{
	struct err e = err_take();
	bool is_ours = session_is_stopping(s) && (e.kind == ERR_CANCELLED || e.kind == ERR_SHUTDOWN);
	buf_add_z(text, e.text);
	if (e.kind == ERR_REJECT)
		*r = smtp_response_split(e.code >= 400 ? e.code : 450, buf_str(text), STR_NULL);
	else
		*r = (struct smtp_response){.code = 450, .content = buf_str(text)};
	if (e.kind != ERR_REJECT && !is_ours)
		log_error(IN_LOG, "%s: %s", IN_DEFERRED_EVENT, e.text);
	err_fini(&e);
	return !is_ours;
}

/** False: the session is to end. */
static bool in_deferred_one(struct session *s, struct message *m)
{
	struct buf text = BUF_INIT;
	struct smtp_response r;
	mono_t deadline = mono_after(IN_EVENT_TIMEOUT);
	in_undefer(m);
	if (in_deferred_call(m, deadline) == 0 && session_rebind(s, m, deadline) == 0)
		return true;
	in_defer(m); /* it is still in this queue */
	bool is_told = in_deferred_answer(s, &r, &text);
	if (is_told)
		session_done_all(s, m, &r, NULL);
	else
		session_return(s, m);
	buf_fini(&text);
	return is_told;
}

static void in_deferred_run(struct session *s)
{
	for (struct message *m; (m = session_next(s, DUR_ZERO)) != NULL;)
		if (!in_deferred_one(s, m))
			return;
}

void in_add_queues(void)
{
	static const struct deliverer injector = {.protocol = "defersmtpinject",
						  .record_name = "DeferredSmtpInjection",
						  .run = in_deferred_run};
	queue_set_internal_deliverer(IN_DEFERRED_NAME, &injector, IN_RETRY_INTERVAL);
}
