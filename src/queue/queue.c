/* queue.c - starting, stopping and recovering the queues as a whole, and the maintenance fiber on worker 0 that refreshes paths,
 * feeds queues that wait for room and forgets what has been empty for long. */
#include "base/alloc.h"
#include "base/err.h"
#include "base/log.h"
#include "queue/queue_impl.h"

#define MAINTAIN_EVERY dur_s(5)
#define ORPHANS_EVERY 6 /* rounds of maintenance */

/* Messages read from the spool whose queue could not be made yet (an error of the policy): tried again with each maintenance. */
static struct {
	pthread_mutex_t lock;
	struct list messages;
	size_t n;
} orphans = {.lock = PTHREAD_MUTEX_INITIALIZER, .messages = {&orphans.messages, &orphans.messages}};

static void orphans_add(struct message *m)
{
	pthread_mutex_lock(&orphans.lock);
	list_push_back(&orphans.messages, &m->link);
	orphans.n++;
	pthread_mutex_unlock(&orphans.lock);
}

static int recover_message(struct message *m, mono_t deadline)
{
	struct buf name = BUF_INIT;
	struct sched_queue *q = NULL;
	if (message_queue_name(m, &name) == 0)
		q = sched_queue_get(buf_str(&name), deadline);
	buf_fini(&name);
	if (q == NULL)
		return -1;
	sched_queue_insert(q, m);
	sched_queue_unref(q);
	return 0;
}

/** Finds queues for all of the list; what has none becomes an orphan. Empties the list. */
static void recover_list(struct list *messages, mono_t deadline)
{
	for (struct list *n; (n = list_pop_front(messages)) != NULL;) {
		struct message *m = list_entry(n, struct message, link);
		if (fiber_is_cancelled()) {
			message_unref(m); /* still in the spool */
			continue;
		}
		if (recover_message(m, deadline) == 0)
			continue;
		struct err e = err_take();
		char id[33];
		uuid_fmt_simple(&m->id, id);
		log_error(QUEUE_LOG, "message %s waits in the spool until its queue can be made: %s", id, e.text);
		err_fini(&e);
		orphans_add(m);
	}
}

static void orphans_retry(mono_t deadline)
{
	struct list all;
	list_init(&all);
	pthread_mutex_lock(&orphans.lock);
	list_splice_back(&all, &orphans.messages);
	orphans.n = 0;
	pthread_mutex_unlock(&orphans.lock);
	recover_list(&all, deadline);
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
	recover_list(&r.messages, deadline);
	if (fiber_is_cancelled()) {
		err_set(ERR_CANCELLED, "reading the spool was cancelled");
		return -1;
	}
	log_info(QUEUE_LOG, "%zu messages recovered from the spool", r.n);
	return 0;
}

static void maintain_fiber(void *arg)
{
	unsigned n_rounds = 0;
	while (!atomic_load(&queue_g.is_stopping)) {
		if (fiber_sleep(MAINTAIN_EVERY, MONO_NEVER) != 0) { /* cancelled */
			err_clear();
			return;
		}
		if (++n_rounds % ORPHANS_EVERY == 0)
			orphans_retry(MONO_NEVER);
		ready_queues_maintain(MONO_NEVER);
		sched_queues_maintain();
		err_clear();
	}
}

void queue_set_smtp_deliverer(const struct deliverer *d) { queue_g.smtp = d; }

void queue_start(const struct queue_params *p)
{
	queue_g.spool = p->spool;
	queue_g.hostname = p->hostname;
	atomic_store(&queue_g.is_stopping, false);
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
		log_warn(QUEUE_LOG, "%llu delivery sessions are still busy at the deadline and will be cancelled",
		         (unsigned long long)left);
}

void queue_free(void)
{
	timer_drop_all();
	for (struct list *n; (n = list_pop_front(&orphans.messages)) != NULL;)
		message_unref(list_entry(n, struct message, link));
	ready_queues_free_all();
	sched_queues_free_all();
	egress_caches_clear();
}

void queue_get_totals(struct queue_totals *out)
{
	out->n_scheduled = (uint64_t)metric_value(queue_metric_scheduled_total());
	out->n_ready = ready_queues_count_messages();
	out->n_sessions = atomic_load(&queue_g.n_sessions);
}
