/* in_transaction.c - from a complete message to its place in the queues, and the answer.
 *
 * First one message for all recipients goes through smtp_server_data; then it is parted into batches, by
 * smtp_server_split_transaction or batch_handling, each a message of its own that shares the body; each gets
 * its trace fields and goes through smtp_server_message_received, is asked once more whether it may be
 * relayed, and finds its queue. Then all are stored with one commit. Only when they are durable comes 250.
 * Whatever goes wrong before that refuses the whole transaction, and nothing of it stays. */
#include "smtp/in_impl.h"

#include "base/map.h"
#include "mime/header.h"
#include "mail/trace.h"

enum {
	IN_IDS_PER_LINE = 50, /* of the last reply: some clients read no more than 2 KB a line */
	IN_TURN_BATCHES = 64, /* before other fibers get a turn */
};

struct in_batch {
	const str_t *rcpt;
	uint32_t n;
};

/* One transaction on its way into the queues. */
struct in_delivery {
	struct in_session *s;
	struct arena arena;
	struct message *whole;
	struct map dsn; /* recipients for which something was said of delivery reports, by address */
	struct in_batch *batch;
	size_t n_batches;
	struct reception accepted;
	struct in_reports reports;
	size_t n_done, n_refused; /* batches that need no queue any more; that nobody may relay */
	bool is_accepted;
	bool is_whole_used; /* whole is the only message */
	mono_t deadline;
};

void in_transaction_reset(struct in_session *s)
{
	struct in_transaction *t = &s->tx;
	for (size_t i = 0; i < t->n_rcpt; i++) {
		free(t->rcpt[i].email);
		free(t->rcpt[i].notify);
		free(t->rcpt[i].orcpt);
	}
	free(t->rcpt);
	free(t->sender);
	free(t->envid);
	in_data_fini(&t->data);
	in_memory_give(t->n_charged);
	*t = (struct in_transaction){0};
}

/* --- what was received --- */

bool in_transaction_refuse_data(struct in_session *s)
{
	const struct in_data *d = &s->tx.data;
	if (d->has_bad_ending)
		in_reply(s, 552, "5.6.0 message data must use CRLF for line endings");
	else if (d->has_long_line)
		in_reply(s, 500, "5.2.3 line too long");
	else if (d->is_too_big)
		in_reply(s, 552, "5.3.4 message too big");
	else if (d->is_out_of_memory)
		in_reply(s, 452, "4.3.1 too much mail at a time. Try later");
	return !in_data_is_good(d);
}

static unsigned in_count_hops(str_t message)
{
	struct header_iter it;
	struct header_field f;
	unsigned n = 0;
	header_iter_init(&it, message);
	while (header_next(&it, &f))
		n += str_ieq(f.name, STR("Received"));
	return n;
}

static void in_write_dsn_of(const struct in_recipient *r, struct json_out *j)
{
	json_key(j, str_of(r->email));
	json_obj_begin(j);
	if (r->notify != NULL)
		json_kv_str(j, STR("notify"), str_of(r->notify));
	if (r->orcpt != NULL)
		json_kv_str(j, STR("orcpt"), str_of(r->orcpt));
	json_obj_end(j);
}

/* What was said of delivery reports about these recipients, in the form that it came in (RFC 3461), and of
 * TLS (RFC 8689). */
static void in_set_demands(struct in_delivery *d, struct message *m)
{
	const struct in_transaction *t = &d->s->tx;
	struct buf b = BUF_INIT;
	struct json_out j = json_out_to(&b);
	bool has_any = t->ret != IN_RET_NONE || t->envid != NULL;
	json_obj_begin(&j);
	if (t->ret != IN_RET_NONE)
		json_kv_str(&j, STR("ret"), t->ret == IN_RET_FULL ? STR("FULL") : STR("HDRS"));
	if (t->envid != NULL)
		json_kv_str(&j, STR("envid"), str_of(t->envid));
	json_key(&j, STR("recipients"));
	json_obj_begin(&j);
	for (uint32_t i = 0; d->dsn.n > 0 && i < m->n_rcpt; i++) {
		const struct in_recipient *r = map_find(&d->dsn, str_of(m->rcpt[i]));
		has_any = has_any || r != NULL;
		if (r != NULL)
			in_write_dsn_of(r, &j);
	}
	json_obj_end(&j);
	json_obj_end(&j);
	if (has_any)
		meta_set_json(&m->meta, STR("dsn"), buf_str(&b));
	if (t->is_requiretls)
		meta_set_json(&m->meta, STR("requiretls"), STR("true"));
	buf_fini(&b);
}

static void in_index_dsn(struct in_delivery *d)
{
	struct in_transaction *t = &d->s->tx;
	for (size_t i = 0; i < t->n_rcpt; i++)
		if (t->rcpt[i].notify != NULL || t->rcpt[i].orcpt != NULL)
			map_put(&d->dsn, str_of(t->rcpt[i].email), &t->rcpt[i]);
}

/* Takes the received bytes out of the transaction. */
static struct message *in_make_whole(struct in_session *s, struct arena *arena)
{
	struct in_transaction *t = &s->tx;
	str_t *rcpt = arena_alloc(arena, (t->n_rcpt + 1) * sizeof(str_t));
	for (size_t i = 0; i < t->n_rcpt; i++) {
		struct buf scratch = BUF_INIT;
		rcpt[i] = in_relay_address(s, str_of(t->rcpt[i].email), &scratch);
		if (scratch.n > 0)
			rcpt[i] = arena_str(arena, rcpt[i]);
		buf_fini(&scratch);
	}
	struct body *body = body_new(t->data.body.n > 0 ? buf_str(&t->data.body) : STR(""));
	in_data_fini(&t->data);
	in_memory_give(t->n_charged);
	t->n_charged = 0;
	struct message *m = message_new(str_of(t->sender), rcpt, (uint32_t)t->n_rcpt, body);
	body_unref(body);
	meta_copy(&m->meta, &s->conn.meta);
	return m;
}

/* --- batches --- */

static void in_add_batch(struct in_delivery *d, const str_t *rcpt, uint32_t n)
{
	if (n > 0)
		d->batch[d->n_batches++] = (struct in_batch){rcpt, n};
}

static void in_batch_each(struct in_delivery *d)
{
	const struct message *m = d->whole;
	d->batch = arena_alloc(&d->arena, (m->n_rcpt + 1) * sizeof(*d->batch));
	str_t *rcpt = arena_alloc(&d->arena, (m->n_rcpt + 1) * sizeof(str_t));
	for (uint32_t i = 0; i < m->n_rcpt; i++) {
		rcpt[i] = str_of(m->rcpt[i]);
		in_add_batch(d, &rcpt[i], 1);
	}
}

/* The domains of a batch are the same, but for case. */
struct in_by_domain {
	str_t *rcpt;
	uint32_t n;
	struct in_by_domain *next;
};

static str_t in_domain_key(struct arena *arena, const char *address)
{
	const char *at = strrchr(address, '@');
	str_t domain = arena_str(arena, str_of(at != NULL ? at + 1 : ""));
	char *p = (char *)(uintptr_t)domain.p;
	for (size_t i = 0; i < domain.n; i++)
		if (p[i] >= 'A' && p[i] <= 'Z')
			p[i] |= 0x20;
	return domain;
}

static void in_batch_by_domain(struct in_delivery *d)
{
	const struct message *m = d->whole;
	struct map domains = {0};
	struct in_by_domain *first = NULL, **last = &first;
	str_t *key = arena_alloc(&d->arena, (m->n_rcpt + 1) * sizeof(str_t));
	for (uint32_t i = 0; i < m->n_rcpt; i++) { /* how many of each, then each to its place: linear */
		key[i] = in_domain_key(&d->arena, m->rcpt[i]);
		struct in_by_domain *g = map_find(&domains, key[i]);
		if (g == NULL) {
			g = arena_zalloc(&d->arena, sizeof(*g));
			map_put(&domains, key[i], g);
			*last = g;
			last = &g->next;
		}
		g->n++;
	}
	d->batch = arena_alloc(&d->arena, (domains.n + 1) * sizeof(*d->batch));
	for (struct in_by_domain *g = first; g != NULL; g = g->next) {
		g->rcpt = arena_alloc(&d->arena, g->n * sizeof(str_t));
		in_add_batch(d, g->rcpt, g->n);
		g->n = 0;
	}
	for (uint32_t i = 0; i < m->n_rcpt; i++) {
		struct in_by_domain *g = map_find(&domains, key[i]);
		g->rcpt[g->n++] = str_of(m->rcpt[i]);
	}
	map_fini(&domains);
}

/* As the policy wants it: checked addresses, whose brackets and routes are dropped. */
static void in_batch_given(struct in_delivery *d, const json_t *batches)
{
	d->batch = arena_alloc(&d->arena, (json_array_size(batches) + 1) * sizeof(*d->batch));
	for (size_t i = 0; i < json_array_size(batches); i++) {
		const json_t *list = json_array_get(batches, i);
		str_t *rcpt = arena_alloc(&d->arena, (json_array_size(list) + 1) * sizeof(str_t));
		uint32_t n = 0;
		for (size_t k = 0; k < json_array_size(list); k++) {
			struct mailbox box;
			const json_t *v = json_array_get(list, k);
			if (mailbox_parse(str_mk(json_string_value(v), json_string_length(v)), &box) == 0)
				rcpt[n++] = arena_str(&d->arena, box.email);
		}
		in_add_batch(d, rcpt, n);
	}
}

static enum in_verdict in_split(struct in_delivery *d)
{
	json_t *batches;
	if (in_event_split(d->s, d->whole, &batches, d->deadline) != IN_ACCEPTED)
		return IN_REFUSED;
	if (batches != NULL)
		in_batch_given(d, batches);
	else if (d->s->set.batch_handling == IN_BATCH_BY_DOMAIN)
		in_batch_by_domain(d);
	else
		in_batch_each(d);
	json_decref(batches);
	return IN_ACCEPTED;
}

/* --- one batch --- */

static bool in_batch_is_whole(const struct in_batch *b, const struct message *m)
{
	if (b->n != m->n_rcpt)
		return false;
	for (uint32_t i = 0; i < b->n; i++)
		if (!str_eq(b->rcpt[i], str_of(m->rcpt[i])))
			return false;
	return true;
}

/* A reference. An only batch needs no message beside the one that there is. */
static struct message *in_make_message(struct in_delivery *d, const struct in_batch *b)
{
	struct message *w = d->whole;
	struct message *m;
	if (d->n_batches == 1 && in_batch_is_whole(b, w)) {
		m = message_ref(w);
		d->is_whole_used = true;
	} else {
		m = message_new(str_of(w->sender), b->rcpt, b->n, w->body);
		message_set_prefix(m, str_mk(w->prefix, w->n_prefix_bytes));
		meta_copy(&m->meta, &w->meta);
	}
	in_set_demands(d, m);
	return m;
}

static void in_add_received(struct in_session *s, struct message *m)
{
	char peer[NET_ADDR_STRLEN], local[NET_ADDR_STRLEN];
	const struct tls_info *tls = stream_tls_info(s->st);
	struct buf cipher = BUF_INIT;
	if (tls != NULL)
		buf_printf(&cipher, "%s:%s", tls->version_word, tls->cipher_word);
	trace_add_received(m, &(struct trace_received){
				      .from = s->ehlo != NULL ? str_of(s->ehlo) : STR(""),
				      .from_addr = str_of(net_addr_fmt_ip(&s->peer, peer)),
				      .by = str_of(s->set.hostname),
				      .by_addr = str_of(net_addr_fmt_ip(&s->local, local)),
				      .protocol = !s->is_tls		? STR("ESMTP")
						  : s->is_authenticated ? STR("ESMTPSA")
									: STR("ESMTPS"),
				      .tls = tls != NULL ? buf_str(&cipher) : STR_NULL,
				      .when = wall_now(),
			      });
	buf_fini(&cipher);
}

static void in_add_supplemental(struct in_session *s, struct message *m)
{
	const struct in_trace_headers *t = s->set.trace;
	str_t *name = xcalloc(t->include_meta_names.n + 1, sizeof(str_t));
	for (size_t i = 0; i < t->include_meta_names.n; i++)
		name[i] = str_of(t->include_meta_names.v[i]);
	trace_add_supplemental(m, str_of(t->header_name), name, t->include_meta_names.n);
	free(name);
}

static void in_see_disposition(struct in_session *s, const struct message *m, const struct in_disposition *d,
			       enum in_report_fate fate)
{
	bool is_report = fate != IN_REPORT_NONE;
	bool is_enqueued = is_report ? fate == IN_REPORT_RELAYED : d->is_relayed;
	if (in_is_seen())
		in_see(s,
		       &(struct in_seen){.kind = IN_SIGHT_DISPOSITION,
					 .text = is_report ? (is_enqueued ? STR("a report, relayed")
									  : STR("a report, dropped"))
							   : (is_enqueued ? STR("relayed") : STR("refused")),
					 .message = m,
					 .is_relayed = d->is_relayed,
					 .is_report = is_report,
					 .is_enqueued = is_enqueued,
					 .log_arf = d->log_arf,
					 .log_oob = d->log_oob});
}

static enum in_verdict in_find_queue(struct in_delivery *d, struct message *m)
{
	if (reception_add(&d->accepted, message_ref(m), d->deadline) == 0)
		return IN_ACCEPTED;
	message_unref(m);	/* the reference that would have been taken */
	if (err_is(ERR_REJECT)) /* get_queue_config has nothing to say to clients */
		err_set(ERR_LUA, "get_queue_config refused a message, which it cannot");
	in_refuse_error(d->s, POLICY_REJECT, "resolve");
	return IN_REFUSED;
}

static enum in_verdict in_process(struct in_delivery *d, struct message *m)
{
	struct in_session *s = d->s;
	struct in_disposition relay;
	enum in_report_fate fate;
	if (s->set.trace->received_header)
		in_add_received(s, m);
	if (s->set.deferred_queue)
		in_defer(m);
	else if (in_event_message(s, "smtp_server_message_received", m, d->deadline) != IN_ACCEPTED)
		return IN_REFUSED;
	if (s->set.trace->supplemental_header)
		in_add_supplemental(s, m);
	if (m->n_rcpt == 0) { /* the policy has taken them away */
		d->n_done++;
		return IN_ACCEPTED;
	}
	if (in_relay_decide(s, str_of(m->sender), str_of(m->rcpt[0]), true, &relay) != IN_ACCEPTED)
		return IN_REFUSED;
	if (in_report_look(s, &d->reports, m, &relay, &fate, d->deadline) != IN_ACCEPTED)
		return IN_REFUSED;
	in_see_disposition(s, m, &relay, fate);
	if (fate == IN_REPORT_DROPPED) {
		d->n_done++;
		return IN_ACCEPTED;
	}
	if (!relay.is_relayed && fate != IN_REPORT_RELAYED) {
		d->n_refused++;
		return IN_ACCEPTED;
	}
	if (in_find_queue(d, m) != IN_ACCEPTED)
		return IN_REFUSED;
	if (fate == IN_REPORT_RELAYED && in_report_is_feedback(&d->reports))
		reception_silence_last(&d->accepted);
	return IN_ACCEPTED;
}

/* --- the end --- */

static void in_refuse_store(struct in_session *s)
{
	if (err_is(ERR_CANCELLED)) {
		in_refuse_error(s, POLICY_REJECT, NULL);
		return;
	}
	log_error(IN_LOG, "a message could not be stored: %s", err_text());
	bool is_full = err_is(ERR_SPOOL_FULL) || err_is(ERR_LIMIT);
	err_clear();
	if (is_full)
		in_reply(s, 452, "4.3.1 insufficient system storage");
	else
		in_reply(s, 451, "4.3.0 the message could not be stored. Try later");
}

static void in_add_id(struct buf *out, size_t n_before, const struct message *m)
{
	char id[33];
	if (n_before > 0)
		buf_add_z(out, n_before % IN_IDS_PER_LINE == 0 ? "\nOK ids=" : " ");
	uuid_fmt_simple(&m->id, id);
	buf_add_z(out, id);
}

/* Reports that end here have an id, too: their records do. */
static void in_collect_ids(const struct in_delivery *d, struct buf *out)
{
	size_t n = 0;
	buf_add_z(out, "OK ids=");
	for (size_t i = 0; i < d->accepted.n; i++)
		in_add_id(out, n++, d->accepted.msg[i]);
	for (size_t i = 0; i < d->reports.n; i++)
		if (d->reports.v[i].is_dropped)
			in_add_id(out, n++, d->reports.v[i].m);
}

/* What records say of the session. peer, subject: room for it; *subject is to be freed. */
static struct record in_how(const struct in_session *s, char peer[NET_ADDR_STRLEN], const char ***subject)
{
	const struct tls_info *tls = stream_tls_info(s->st);
	struct record how = {
		.peer_name = s->ehlo != NULL ? str_of(s->ehlo) : STR(""),
		.peer_addr = str_of(net_addr_fmt_ip(&s->peer, peer)),
		.reception_protocol = STR("ESMTP"),
		.session_id = &s->id,
	};
	*subject = NULL;
	if (tls != NULL) {
		how.tls_cipher = str_of(tls->cipher_word);
		how.tls_protocol = str_of(tls->version_word);
		*subject = xcalloc(tls->n_peer_names + 1, sizeof(**subject));
		for (size_t i = 0; tls->is_peer_verified && i < tls->n_peer_names; i++)
			if (tls->peer_name[i].kind == TLS_NAME_SUBJECT)
				(*subject)[how.n_tls_peer_subject++] = tls->peer_name[i].text;
		how.tls_peer_subject = *subject;
	}
	return how;
}

static void in_enqueue(struct in_delivery *d)
{
	char peer[NET_ADDR_STRLEN];
	const char **subject;
	struct record how = in_how(d->s, peer, &subject);
	metric_add(in_metrics()->received, (int64_t)(d->accepted.n + d->reports.n_dropped));
	in_reports_log(&d->reports, &how);
	reception_enqueue(&d->accepted, &how);
	free(subject);
}

/* The client may have given up, and would send it again: it is told to, and of what may have been stored
 * nothing stays but two records. */
static void in_unwind(struct in_delivery *d, const char *during)
{
	char peer[NET_ADDR_STRLEN];
	const char **subject;
	struct record how = in_how(d->s, peer, &subject);
	char *why = xasprintf("reception is undone: data_processing_timeout exceeded (%s)", during);
	reception_log_unwound(&d->accepted, &how, str_of(why));
	free(why);
	free(subject);
	in_reply(d->s, 451, "4.4.5 data_processing_timeout exceeded (%s)", during);
}

/* Nothing of it stays, whatever was stored. */
static void in_undo(struct in_delivery *d)
{
	for (size_t i = 0; i < d->accepted.n; i++)
		reception_refuse(message_ref(d->accepted.msg[i]));
}

static void in_accept(struct in_delivery *d)
{
	struct in_session *s = d->s;
	struct buf ids = BUF_INIT;
	int rc = s->set.deferred_spool ? reception_defer(&d->accepted, d->deadline)
				       : reception_store(&d->accepted, d->deadline);
	bool is_late = rc != 0 ? err_is(ERR_TIMEOUT) : mono_is_past(d->deadline);
	if (is_late) {
		err_clear();
		in_unwind(d, rc != 0 ? "spool" : "insert");
		return;
	}
	if (rc != 0) {
		in_refuse_store(s);
		return;
	}
	in_collect_ids(d, &ids);
	in_enqueue(d);
	d->is_accepted = true;
	s->n_errors = s->n_refusals = 0;
	in_reply_text(s, 250, buf_str(&ids));
	buf_fini(&ids);
}

static void in_deliver(struct in_delivery *d)
{
	struct in_session *s = d->s;
	if (in_event_message(s, "smtp_server_data", d->whole, d->deadline) != IN_ACCEPTED ||
	    in_split(d) != IN_ACCEPTED)
		return;
	for (size_t i = 0; i < d->n_batches; i++) {
		struct message *m = in_make_message(d, &d->batch[i]);
		size_t n_before = d->accepted.n;
		enum in_verdict verdict = in_process(d, m);
		if (d->accepted.n == n_before)
			reception_refuse(m);
		else
			message_unref(m);
		if (verdict != IN_ACCEPTED)
			return;
		if (i % IN_TURN_BATCHES == IN_TURN_BATCHES - 1)
			fiber_yield();
	}
	if (d->n_refused > 0 && d->accepted.n == 0 && d->n_done == 0) {
		in_reply(s, 550, "5.7.1 relaying not permitted");
		return;
	}
	in_accept(d);
}

static void in_observe(struct metric_series *duration, mono_t from, mono_t to)
{
	metric_observe(duration, dur_seconds(mono_sub(to, from)));
}

void in_transaction_end(struct in_session *s)
{
	mono_t begun = s->tx.begun, received = mono_now();
	struct in_delivery d = {
		.s = s, .arena = ARENA_INIT, .deadline = mono_after(s->set.data_processing_timeout)};
	buf_clear(&s->shown);
	buf_add_z(&s->shown, "DATA");
	in_observe(in_metrics()->read_duration, s->tx.data_begun, received);
	if (in_transaction_refuse_data(s))
		goto out;
	if (in_count_hops(buf_str(&s->tx.data.body)) > IN_MAX_HOPS) {
		in_reply(s, 554, "5.4.6 too many hops: the message is in a loop");
		goto out;
	}
	d.whole = in_make_whole(s, &d.arena);
	in_index_dsn(&d);
	reception_init(&d.accepted, d.whole->n_rcpt);
	d.accepted.logs_null = true;
	in_deliver(&d);
	if (!d.is_accepted)
		in_undo(&d);
	reception_fini(&d.accepted);
	in_reports_fini(&d.reports);
	if (d.is_whole_used)
		message_unref(d.whole);
	else /* it was never more than a form */
		reception_refuse(d.whole);
	map_fini(&d.dsn);
out:
	in_transaction_reset(s);
	arena_fini(&d.arena);
	in_observe(in_metrics()->process_duration, received, mono_now());
	in_observe(in_metrics()->transaction_duration, begun, mono_now());
}
