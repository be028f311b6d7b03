/* deferred.c - messages that were taken without being stored (deferred_spool). They are in memory alone until
 * they are delivered, or until they must wait: with its first transient failure a message is stored, and so
 * is all that waits in the queues when there is much of it, when memory is short or the bodies in it are over
 * their budget, and at the end of the process.
 *
 * To store what waits, a fiber takes it out of its queue, which makes it the fiber's own, stores as much as
 * makes one commit, and gives it back to its scheduled queue. What a session has in hand is stored by that
 * session when it gives it back. */
#include "base/alloc.h"
#include "base/err.h"
#include "base/log.h"
#include "fiber/memory.h"
#include "queue/queue_impl.h"

#define DEFERRED_MAX_MESSAGES 100000
#define DEFERRED_MAX_BYTES (UINT64_C(64) << 20)
#define DEFERRED_OWN_BYTES 512 /* of a message, without prefix and body; about */
#define TAKE_MESSAGES 4096
#define TAKE_BYTES ((size_t)32 << 20)
#define STORE_TIMEOUT dur_s(30)

static struct {
	_Atomic uint64_t n, n_bytes;
	_Atomic uint64_t max_n, max_bytes;
	_Atomic bool is_saving;
} deferred = {.max_n = DEFERRED_MAX_MESSAGES, .max_bytes = DEFERRED_MAX_BYTES};

void queue_set_deferred_limits(uint64_t n_messages, uint64_t n_bytes)
{
	atomic_store(&deferred.max_n, n_messages);
	atomic_store(&deferred.max_bytes, n_bytes);
}

void deferred_get_totals(struct queue_totals *out)
{
	out->n_deferred = atomic_load(&deferred.n);
	out->n_deferred_bytes = atomic_load(&deferred.n_bytes);
}

/** More than half of what may be, too many bodies of whatever kind, or little memory. */
static bool deferred_is_pressing(void)
{
	uint64_t n = atomic_load(&deferred.n);
	return n > 0 && (n > atomic_load(&deferred.max_n) / 2 ||
			 atomic_load(&deferred.n_bytes) > atomic_load(&deferred.max_bytes) / 2 ||
			 body_total_bytes() > queue_g.body_budget_bytes || memory_level() != MEMORY_PLENTY);
}

/** What m is counted as; a body that the one before it holds as well is counted once. */
static uint32_t deferred_bytes_of(const struct message *m, const struct message *before)
{
	uint64_t n = DEFERRED_OWN_BYTES + m->n_prefix_bytes;
	if (m->body != NULL && (before == NULL || before->body != m->body))
		n += m->body->n_bytes;
	return n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
}

int deferred_add(struct message *const *m, size_t n)
{
	uint64_t n_bytes = 0;
	for (size_t i = 0; i < n; i++)
		n_bytes += deferred_bytes_of(m[i], i > 0 ? m[i - 1] : NULL);
	if (n > atomic_load(&deferred.max_n) || n_bytes > atomic_load(&deferred.max_bytes))
		return DEFERRED_NEVER_FITS;
	uint64_t all = atomic_fetch_add(&deferred.n, n) + n,
		 all_bytes = atomic_fetch_add(&deferred.n_bytes, n_bytes) + n_bytes;
	if (all > atomic_load(&deferred.max_n) || all_bytes > atomic_load(&deferred.max_bytes)) {
		atomic_fetch_sub(&deferred.n, n);
		atomic_fetch_sub(&deferred.n_bytes, n_bytes);
		deferred_start();
		err_set(ERR_LIMIT, "too many messages are in memory without being stored");
		return -1;
	}
	for (size_t i = 0; i < n; i++)
		m[i]->n_deferred_bytes = deferred_bytes_of(m[i], i > 0 ? m[i - 1] : NULL);
	return 0;
}

void deferred_forget(struct message *m)
{
	if (m->n_deferred_bytes == 0)
		return;
	atomic_fetch_sub(&deferred.n, 1);
	atomic_fetch_sub(&deferred.n_bytes, m->n_deferred_bytes);
	m->n_deferred_bytes = 0;
}

/* --- storing --- */

/** -1: none is stored, and the error has been told. Not given up when the fiber is cancelled: nobody else
 * will do it. */
static int deferred_store(struct message **m, size_t n, mono_t deadline)
{
	fiber_shield_begin();
	int rc = n > 0 ? spool_put(queue_g.spool, m, n, deadline) : 0;
	fiber_shield_end();
	if (rc != 0) {
		log_error(QUEUE_LOG,
			  "%zu messages that were taken with deferred_spool "
			  "could not be stored, and stay in memory: %s",
			  n, err_text());
		err_clear();
		return -1;
	}
	for (size_t i = 0; i < n; i++)
		deferred_forget(m[i]);
	return 0;
}

void deferred_keep(struct message *m)
{
	if (m->is_spooled)
		spool_update(queue_g.spool, m);
	else
		(void)deferred_store(&m, 1, mono_after(STORE_TIMEOUT));
}

void deferred_remove(struct message *m)
{
	if (m->is_spooled)
		spool_remove(queue_g.spool, &m->id);
}

size_t deferred_take_from(struct deferred_take *t, struct list *messages)
{
	size_t before = t->n;
	list_for_each_safe (it, messages) {
		struct message *m = list_entry(it, struct message, link);
		if (m->n_deferred_bytes == 0)
			continue;
		t->is_full =
			t->n == TAKE_MESSAGES || (t->n > 0 && t->n_bytes + m->n_deferred_bytes > TAKE_BYTES);
		if (t->is_full)
			break;
		list_remove(&m->link);
		list_push_back(&t->messages, &m->link);
		t->n++;
		t->n_bytes += m->n_deferred_bytes;
	}
	return t->n - before;
}

static void deferred_give_back(struct deferred_take *t)
{
	wall_t now = wall_now();
	for (struct list *n; (n = list_pop_front(&t->messages)) != NULL;) {
		struct message *m = list_entry(n, struct message, link);
		outcome_shed_body(m);
		if (m->due.ns > now.ns)
			timer_insert(m);
		else
			sched_queue_make_due(m->queue, m);
	}
}

/** Stores a commit's worth of what waits. Returns how many; 0: there is none, or it cannot be done. */
static size_t deferred_save_some(mono_t deadline)
{
	struct deferred_take t = {.n = 0};
	list_init(&t.messages);
	timer_take_deferred(&t);
	sched_queues_take_deferred(&t);
	ready_queues_take_deferred(&t);
	struct message **m = xcalloc(t.n + 1, sizeof(*m));
	size_t n = 0;
	list_for_each (it, &t.messages)
		m[n++] = list_entry(it, struct message, link);
	int rc = deferred_store(m, n, deadline);
	free(m);
	deferred_give_back(&t);
	return rc == 0 ? n : 0;
}

void deferred_save_all(mono_t deadline)
{
	size_t n = 0;
	for (size_t some; atomic_load(&deferred.n) > 0 && (some = deferred_save_some(deadline)) > 0;)
		n += some;
	if (n > 0)
		log_info(QUEUE_LOG, "%zu messages that were taken with deferred_spool are stored now", n);
}

static void deferred_fiber(void *arg)
{
	while (deferred_is_pressing() && deferred_save_some(mono_after(STORE_TIMEOUT)) > 0)
		fiber_yield();
	atomic_store(&deferred.is_saving, false);
}

void deferred_reset(void)
{
	atomic_store(&deferred.n, 0);
	atomic_store(&deferred.n_bytes, 0);
	atomic_store(&deferred.is_saving, false);
}

void deferred_start(void)
{
	if (deferred_is_pressing() && !atomic_exchange(&deferred.is_saving, true))
		worker_start_fiber(worker_least_loaded(), "save-deferred", deferred_fiber, NULL);
}
