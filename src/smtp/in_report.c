/* in_report.c - mail that is a report on mail that was sent: bounces that came later than the answer (RFC
 * 3464, log_oob) and complaints (RFC 5965, log_arf). get_listener_domain says of a recipient's domain whether
 * they are logged, and whether they go on to the recipient then.
 *
 * A message is looked at when the policy has had it. What it was found to be is remembered, as the batches of
 * a transaction share their body, and logged when the transaction is accepted: a client that is refused sends
 * its report again. What says that it is a report but is malformed, or larger than any report, is none.
 *
 * Whoever sends a report chooses its texts, and one message makes many records: those that each of them has
 * are cut. */
#include "smtp/in_impl.h"

#include "fiber/offload.h"
#include "smtp/reply.h"

enum {
	IN_REPORT_INLINE_BYTES = 128 << 10,   /* what is larger is read by another thread */
	IN_REPORT_ORIGINAL_BYTES = 256 << 10, /* of the original message in a record */
	IN_REPORT_NAME_BYTES = 255,
	IN_REPORT_TEXT_BYTES = 4096,
	IN_REPORT_TURN_RECORDS = 64, /* before other fibers get a turn */
};

enum in_report_kind { IN_REPORT_NO_KIND, IN_REPORT_BOUNCE, IN_REPORT_FEEDBACK };
struct in_report {
	unsigned refs;
	struct body *body; /* reference */
	enum in_report_kind kind;
	struct dsn_report bounce; /* IN_REPORT_BOUNCE */
	struct buf feedback;	  /* IN_REPORT_FEEDBACK: JSON */
	char *malformed;	  /* NULL, or what is wrong with it */
};

static void in_report_unref(struct in_report *r)
{
	if (r == NULL || --r->refs > 0)
		return;
	if (r->kind == IN_REPORT_BOUNCE)
		dsn_report_fini(&r->bounce);
	buf_fini(&r->feedback);
	free(r->malformed);
	body_unref(r->body);
	free(r);
}

/* --- what a body is --- */

/* No more than n bytes, and no half character where there was a whole one. */
static str_t in_report_cut(str_t s, size_t n)
{
	if (s.n <= n)
		return s;
	for (int i = 0; i < 3 && n > 0 && ((unsigned char)s.p[n] & 0xc0) == 0x80; i++)
		n--;
	return str_head(s, n);
}

static void in_report_write_feedback(struct in_report *r, struct arf_report *arf)
{
	arf->original_message = in_report_cut(arf->original_message, IN_REPORT_ORIGINAL_BYTES);
	json_t *v = arf_report_json(arf, true);
	char *text = json_dumps(v, JSON_COMPACT);
	buf_add_z(&r->feedback, text != NULL ? text : "null");
	free(text);
	json_decref(v);
}

/* On any thread. */
static int in_report_read(void *arg)
{
	struct in_report *r = arg;
	struct arf_report arf;
	str_t message = str_mk(r->body->p, r->body->n_bytes);
	int rc = dsn_report_parse(message, &r->bounce);
	if (rc == 1)
		r->kind = IN_REPORT_BOUNCE;
	if (rc == 0)
		rc = arf_report_parse(message, &arf);
	if (rc == 1 && r->kind == IN_REPORT_NO_KIND) {
		r->kind = IN_REPORT_FEEDBACK;
		in_report_write_feedback(r, &arf);
		arf_report_fini(&arf);
	}
	if (rc < 0) {
		r->malformed = xstrdup(err_text());
		err_clear();
	}
	return 0;
}

/** A reference. NULL with the error. Yields. */
static struct in_report *in_report_of(struct body *body, mono_t deadline)
{
	struct in_report *r = xcalloc(1, sizeof(*r));
	r->refs = 1;
	r->body = body_ref(body);
	int rc = body->n_bytes <= IN_REPORT_INLINE_BYTES ? in_report_read(r)
							 : offload_run(in_report_read, r, deadline);
	if (rc != 0) {
		in_report_unref(r);
		return NULL;
	}
	return r;
}

static void in_report_remember(struct in_reports *all, struct message *m, struct in_report *r,
			       bool is_dropped)
{
	if (all->n == all->cap) {
		all->cap = all->cap * 2 + 4;
		all->v = xrealloc(all->v, all->cap * sizeof(*all->v));
	}
	r->refs++;
	all->v[all->n++] = (struct in_report_entry){r, message_ref(m), is_dropped};
	all->n_dropped += is_dropped;
}

enum in_verdict in_report_look(struct in_session *s, struct in_reports *all, struct message *m,
			       const struct in_disposition *d, enum in_report_fate *fate, mono_t deadline)
{
	*fate = IN_REPORT_NONE;
	if (d->log_oob == IN_REPORT_IGNORE && d->log_arf == IN_REPORT_IGNORE)
		return IN_ACCEPTED;
	if (reception_load_body(m, deadline) != 0) {
		in_refuse_error(s, POLICY_REJECT, "spool");
		return IN_REFUSED;
	}
	if (all->last == NULL || all->last->body != m->body) {
		struct in_report *r = in_report_of(m->body, deadline);
		if (r == NULL) {
			in_refuse_error(s, POLICY_REJECT, "insert");
			return IN_REFUSED;
		}
		if (r->malformed != NULL)
			log_info(IN_LOG,
				 "a message for %s is not taken for the report that it says it is: %s",
				 m->rcpt[0], r->malformed);
		in_report_unref(all->last);
		all->last = r;
	}
	enum in_report_mode mode = all->last->kind == IN_REPORT_BOUNCE	   ? d->log_oob
				   : all->last->kind == IN_REPORT_FEEDBACK ? d->log_arf
									   : IN_REPORT_IGNORE;
	if (mode == IN_REPORT_IGNORE)
		return IN_ACCEPTED;
	*fate = mode == IN_REPORT_LOG_THEN_DROP ? IN_REPORT_DROPPED : IN_REPORT_RELAYED;
	in_report_remember(all, m, all->last, *fate == IN_REPORT_DROPPED);
	return IN_ACCEPTED;
}

bool in_report_is_feedback(const struct in_reports *all)
{
	return all->last != NULL && all->last->kind == IN_REPORT_FEEDBACK;
}

void in_reports_fini(struct in_reports *all)
{
	for (size_t i = 0; i < all->n; i++) {
		in_report_unref(all->v[i].report);
		message_unref(all->v[i].m);
	}
	in_report_unref(all->last);
	free(all->v);
	*all = (struct in_reports){0};
}

/* --- records --- */

/** "smtp; 550 5.1.1 text": the answer that the other server was given. What is no such answer is the text of
 * a 550. */
static struct smtp_response in_report_answer(const struct dsn_recipient *to)
{
	str_t text = to->diagnostic_code.value.p != NULL
			     ? in_report_cut(to->diagnostic_code.value, IN_REPORT_TEXT_BYTES)
			     : STR("");
	uint64_t code;
	bool is_answer = str_ieq(to->diagnostic_code.type, STR("smtp")) &&
			 str_to_u64(str_head(text, 3), &code) && code >= 400 && code <= 599 &&
			 (text.n == 3 || text.p[3] == ' ' || text.p[3] == '-');
	struct smtp_response r =
		is_answer ? smtp_response_split((int)code, str_trim(str_skip(text, 4)), STR_NULL)
			  : smtp_response_split(550, text, STR_NULL);
	if (r.enhanced[0] == 0 && (to->status[0] == 4 || to->status[0] == 5))
		for (int i = 0; i < 3; i++)
			r.enhanced[i] = (int)to->status[i];
	return r;
}

/* A recipient that waits, was passed on or has its mail is
 * none that bounced. A comment may follow the word. */
static bool in_report_has_failed(const struct dsn_recipient *to)
{
	return str_starts(to->action, STR("failed")) &&
	       (to->action.n == 6 || to->action.p[6] == ' ' || to->action.p[6] == '(');
}

bool in_report_bounce(const struct dsn_report *d, const struct dsn_recipient *to, struct record *out)
{
	if (!in_report_has_failed(to))
		return false;
	out->type = RECORD_OOB;
	out->response = in_report_answer(to);
	out->peer_name = in_report_cut(d->reporting_mta.value, IN_REPORT_NAME_BYTES);
	out->when = to->last_attempt_date;
	return true;
}

/* As the sender of the bounced mail knew the address, where that is told. */
static str_t in_report_recipient(const struct dsn_recipient *to)
{
	return to->original_recipient.value.n > 0 ? to->original_recipient.value
	       : to->final_recipient.value.n > 0  ? to->final_recipient.value
						  : STR("");
}

static void in_report_log_bounce(const struct in_report_entry *e, const struct dsn_recipient *to,
				 const struct record *how)
{
	char *rcpt = str_dup(in_report_recipient(to));
	const char *const rcpts[] = {rcpt};
	struct record r = {
		.sender = str_of(e->m->rcpt[0]), /* the address that the bounced mail had come from */
		.id = &e->m->id,
		.rcpt = rcpts,
		.n_rcpt = 1,
		.queue = STR(""),
		.site = STR(""),
		.peer_addr = how->peer_addr,
		.reception_protocol = how->reception_protocol,
		.session_id = how->session_id,
	};
	if (in_report_bounce(&e->report->bounce, to, &r))
		record_log(&r, MONO_NEVER);
	free(rcpt);
}

static void in_report_log_bounces(const struct in_report_entry *e, const struct record *how)
{
	const struct dsn_report *d = &e->report->bounce;
	if (!record_is_wanted(RECORD_OOB))
		return;
	for (size_t i = 0; i < d->n_recipients; i++) {
		in_report_log_bounce(e, &d->recipient[i], how);
		if (i % IN_REPORT_TURN_RECORDS == IN_REPORT_TURN_RECORDS - 1)
			fiber_yield();
	}
}

static void in_report_log_feedback(const struct in_report_entry *e, const struct record *how)
{
	struct buf queue = BUF_INIT;
	if (!record_is_wanted(RECORD_FEEDBACK))
		return;
	if (message_queue_name(e->m, &queue) != 0)
		err_clear(); /* one that ends here needs none */
	struct record r = *how;
	r.type = RECORD_FEEDBACK;
	r.msg = e->m;
	r.queue = queue.n > 0 ? buf_str(&queue) : STR("");
	r.site = STR("");
	r.response = (struct smtp_response){.code = 250, .content = STR("")};
	r.feedback_report = buf_str(&e->report->feedback);
	record_log(&r, MONO_NEVER);
	buf_fini(&queue);
}

void in_reports_log(const struct in_reports *all, const struct record *how)
{
	for (size_t i = 0; i < all->n; i++) {
		if (all->v[i].report->kind == IN_REPORT_BOUNCE)
			in_report_log_bounces(&all->v[i], how);
		else
			in_report_log_feedback(&all->v[i], how);
		if (i % IN_REPORT_TURN_RECORDS == IN_REPORT_TURN_RECORDS - 1)
			fiber_yield();
	}
}
