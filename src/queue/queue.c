/* queue.c - starting, stopping and recovering the queues as a whole, and the maintenance fiber on worker 0
 * that refreshes paths, feeds queues that wait for room and forgets what has been empty for long. */
#include "base/alloc.h"
#include "base/err.h"
#include "base/log.h"
#include "queue/queue_impl.h"

#define MAINTAIN_EVERY dur_s(5)
#define ORPHANS_EVERY 6 /* rounds of maintenance */
#define BODY_BUDGET_BYTES ((size_t)64 << 20)
#define RECOVER_AT_ONCE 256 /* messages, before other fibers get their turn */
#define POLICY_TIMEOUT dur_s(30)
#define SAVE_TIME dur_s(20) /* for what was taken with deferred_spool, when the queues stop */

/* Messages read from the spool whose queue could not be made yet (an error of the policy, or one that does
 * not come to an end): tried again now and then. */
static struct {
	pthread_mutex_t lock;
	struct list messages;
	_Atomic bool is_trying;
} orphans = {.lock = PTHREAD_MUTEX_INITIALIZER, .messages = {&orphans.messages, &orphans.messages}};

static void orphans_add(struct list *messages)
{
	pthread_mutex_lock(&orphans.lock);
	list_splice_back(&orphans.messages, messages);
	pthread_mutex_unlock(&orphans.lock);
}

/** Metadata from which no queue name follows: that will not change. */
static void recover_give_up(struct message *m)
{
	char *text = xasprintf("Failed to compute queue name: %s", err_text());
	err_clear();
	outcome_give_up(m,
			&(struct smtp_response){.code = 551, .enhanced = {5, 1, 3}, .content = str_of(text)});
	free(text);
}

/* One look at messages without a queue. The policy is asked once for each queue, and after time-outs that add
 * up to POLICY_TIMEOUT not at all any more: a handler that hangs must hold up neither the start nor those
 * that others are about. Who was not asked about comes first the next time. */
struct recover_round {
	struct map failed; /* names of queues that could not be made */
	dur_t hung;	   /* waited for in vain */
	struct list unasked, orphans;
	size_t n_orphans;
};

static int recover_ask(struct recover_round *r, str_t name, struct sched_queue **q, mono_t deadline)
{
	mono_t begun = mono_now();
	if (map_find(&r->failed, name) != NULL) {
		err_set(ERR_NOT_FOUND, "queue `" STR_FMT "` could not be made a moment ago", STR_ARG(name));
		return -1;
	}
	*q = sched_queue_get(name, mono_min(deadline, mono_after(POLICY_TIMEOUT)));
	if (*q != NULL)
		return 0;
	map_put(&r->failed, str_of(str_dup(name)), r);
	if (err_is(ERR_TIMEOUT))
		r->hung.ns += mono_sub(mono_now(), begun).ns;
	return -1;
}

/** -1 with the error: its queue cannot be made now; m is still the caller's. */
static int recover_message(struct recover_round *r, struct message *m, mono_t deadline)
{
	struct buf name = BUF_INIT;
	struct sched_queue *q = NULL;
	int rc = 0;
	if (message_queue_name(m, &name) != 0)
		recover_give_up(m);
	else if ((rc = recover_ask(r, buf_str(&name), &q, deadline)) == 0)
		outcome_admit(q, m);
	sched_queue_unref(q);
	buf_fini(&name);
	return rc;
}

static void recover_note_orphan(struct recover_round *r, struct message *m)
{
	if (r->n_orphans++ ==
	    0) { /* one stands for all: there may be very many, and again with every round */
		char id[33];
		uuid_fmt_simple(&m->id, id);
		log_error(QUEUE_LOG, "message %s waits in the spool until its queue can be made: %s", id,
			  err_text());
	}
	err_clear();
	list_push_back(&r->orphans, &m->link);
}

static void recover_round_end(struct recover_round *r)
{
	size_t pos = 0;
	str_t key;
	void *value;
	orphans_add(&r->unasked);
	orphans_add(&r->orphans);
	while (map_next(&r->failed, &pos, &key, &value))
		free((char *)(uintptr_t)key.p);
	map_fini(&r->failed);
}

/** Finds queues for all of the list; what has none becomes an orphan. Empties the list. Returns how many
 * became orphans. */
static size_t recover_list(struct list *messages, mono_t deadline)
{
	struct recover_round r = {.n_orphans = 0};
	size_t n_done = 0;
	list_init(&r.unasked);
	list_init(&r.orphans);
	for (struct list *n; (n = list_pop_front(messages)) != NULL;) {
		struct message *m = list_entry(n, struct message, link);
		if (fiber_is_cancelled() || atomic_load(&queue_g.is_stopping)) {
			message_unref(m); /* still in the spool */
			continue;
		}
		if (++n_done % RECOVER_AT_ONCE == 0)
			fiber_yield();
		if (r.hung.ns >= POLICY_TIMEOUT.ns) {
			list_push_back(&r.unasked, &m->link);
			r.n_orphans++;
		} else if (recover_message(&r, m, deadline) != 0) {
			recover_note_orphan(&r, m);
		}
	}
	recover_round_end(&r);
	return r.n_orphans;
}

static void orphans_fiber(void *arg)
{
	struct list all;
	list_init(&all);
	pthread_mutex_lock(&orphans.lock);
	list_splice_back(&all, &orphans.messages);
	pthread_mutex_unlock(&orphans.lock);
	size_t n = recover_list(&all, MONO_NEVER);
	if (n > 1)
		log_error(QUEUE_LOG, "%zu messages wait in the spool until their queues can be made", n);
	atomic_store(&orphans.is_trying, false);
}

static void orphans_retry(void)
{
	pthread_mutex_lock(&orphans.lock);
	bool is_due = !list_is_empty(&orphans.messages);
	pthread_mutex_unlock(&orphans.lock);
	if (is_due && !atomic_exchange(&orphans.is_trying, true))
		worker_start_fiber(worker_get(0), "orphans", orphans_fiber, NULL);
}

struct recovery {
	struct list messages; /* by message.link, until their queues are found */
	size_t n;
};

static void recover_collect(struct message *m, void *arg)
{
	struct recovery *r = arg;
	list_init(&m->link);
	list_push_back(&r->messages, &m->link);
	r->n++;
}

int queue_recover(mono_t deadline)
{
	struct recovery r = {.n = 0};
	list_init(&r.messages);
	if (spool_enumerate(queue_g.spool, recover_collect, &r, deadline) != 0)
		return -1;
	size_t n_orphans = recover_list(&r.messages, deadline);
	if (fiber_is_cancelled()) {
		err_set(ERR_CANCELLED, "reading the spool was cancelled");
		return -1;
	}
	log_info(QUEUE_LOG, "%zu messages recovered from the spool", r.n);
	if (n_orphans > 0)
		log_error(QUEUE_LOG, "the queues of %zu of them could not be made; they wait", n_orphans);
	return 0;
}

static void maintain_fiber(void *arg)
{
	unsigned n_rounds = 0;
	for (;;) {
		if (fiber_sleep(MAINTAIN_EVERY, MONO_NEVER) != 0 || atomic_load(&queue_g.is_stopping)) {
			err_clear();
			return;
		}
		if (++n_rounds % ORPHANS_EVERY == 0)
			orphans_retry();
		ready_queues_maintain(MONO_NEVER);
		sched_queues_maintain();
		deferred_start();
		err_clear();
	}
}

void queue_set_smtp_deliverer(const struct deliverer *d)
{
	queue_g.smtp = d;
}

void queue_start(const struct queue_params *p)
{
	queue_g.spool = p->spool;
	queue_g.hostname = p->hostname;
	queue_g.started_at = wall_now();
	queue_g.body_budget_bytes = p->body_budget_bytes > 0 ? p->body_budget_bytes : BODY_BUDGET_BYTES;
	atomic_store(&queue_g.is_stopping, false);
	atomic_store(&orphans.is_trying, false);
	timer_start();
	worker_start_fiber(worker_get(0), "queue-maintenance", maintain_fiber, NULL);
}

void queue_stop(mono_t deadline)
{
	atomic_store(&queue_g.is_stopping, true);
	timer_stop();
	while (atomic_load(&queue_g.n_sessions) > 0) {
		ready_queues_stop(); /* again and again: a session may have become idle since */
		if (mono_is_past(deadline))
			break;
		if (fiber_sleep(dur_ms(20), deadline) != 0) {
			err_clear();
			break;
		}
	}
	uint64_t left = atomic_load(&queue_g.n_sessions);
	if (left > 0)
		log_warn(QUEUE_LOG,
			 "%llu delivery sessions are still busy at the deadline and will be cancelled",
			 (unsigned long long)left);
	deferred_save_all(mono_after(SAVE_TIME));
}

void queue_free(void)
{
	timer_drop_all();
	resolve_drop_all();
	for (struct list *n; (n = list_pop_front(&orphans.messages)) != NULL;)
		message_unref(list_entry(n, struct message, link));
	ready_queues_free_all();
	sched_queues_free_all();
	egress_caches_clear();
	deferred_reset();
}

void queue_get_totals(struct queue_totals *out)
{
	out->n_scheduled = (uint64_t)metric_value(queue_metric_scheduled_total());
	out->n_ready = ready_queues_count_messages();
	out->n_sessions = atomic_load(&queue_g.n_sessions);
	deferred_get_totals(out);
}
