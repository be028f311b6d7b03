/* timer.c - the one timer wheel of the process and the fiber on worker 0 that turns it. Messages that become
 * due leave the wheel in a batch and are handed to their queues outside its lock. The fiber sleeps until the
 * wheel's next tick of interest; an earlier insertion wakes it. Due times are points of the wall clock, which
 * may be set: a jump forward is noticed within LOOK_EVERY, a jump back has the wheel built anew. */
#include "base/err.h"
#include "queue/queue_impl.h"

#define LOOK_EVERY dur_s(30)
#define JUMP_BACK dur_s(2)
#define HAND_AT_ONCE 256 /* messages, before other fibers get their turn */

static struct {
	pthread_mutex_t lock;
	struct wheel wheel;
	wall_t looked_at; /* when the wheel was last advanced */
	wall_t sleeps_until;
	struct event *wake; /* while the fiber sleeps */
	size_t n_deferred;  /* of the wheel: those that could not be stored when they should have been */
	bool is_running;
} timer = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void timer_advance_locked(wall_t now, struct list *due)
{
	if (wall_sub(timer.looked_at, now).ns > JUMP_BACK.ns)
		wheel_rebuild(&timer.wheel, now);
	timer.looked_at = now;
	wheel_advance(&timer.wheel, now, due);
	if (timer.n_deferred > 0)
		list_for_each (it, due)
			timer.n_deferred -= list_entry(it, struct message, link)->n_deferred_bytes != 0;
}

static void timer_fiber(void *arg)
{
	struct list due;
	list_init(&due);
	while (!fiber_is_cancelled()) {
		pthread_mutex_lock(&timer.lock);
		wall_t now = wall_now();
		timer_advance_locked(now, &due);
		struct event *wake = NULL;
		dur_t next = DUR_ZERO;
		if (list_is_empty(&due)) {
			next = wheel_next(&timer.wheel, now);
			if (next.ns > LOOK_EVERY.ns)
				next = LOOK_EVERY;
			timer.sleeps_until = wall_add(now, next);
			wake = timer.wake = event_new();
		}
		bool is_running = timer.is_running;
		pthread_mutex_unlock(&timer.lock);

		unsigned n_handed = 0;
		for (struct list *n; (n = list_pop_front(&due)) != NULL;) {
			struct message *m = list_entry(n, struct message, link);
			struct sched_queue *q = m->queue;
			sched_metrics_add(&q->scheduled, -1);
			sched_queue_make_due(q, m);
			if (++n_handed % HAND_AT_ONCE == 0)
				fiber_yield();
		}
		if (wake == NULL)
			continue;
		if (is_running && event_wait(wake, mono_after(next)) != 0)
			err_clear(); /* time-out: a tick; cancelled: the loop ends */
		pthread_mutex_lock(&timer.lock);
		timer.wake = NULL;
		pthread_mutex_unlock(&timer.lock);
		event_unref(wake);
		if (!is_running)
			return;
	}
}

void timer_start(void)
{
	timer.looked_at = wall_now();
	wheel_init(&timer.wheel, timer.looked_at);
	timer.is_running = true;
	worker_start_fiber(worker_get(0), "timer", timer_fiber, NULL);
}

void timer_stop(void)
{
	pthread_mutex_lock(&timer.lock);
	timer.is_running = false;
	if (timer.wake != NULL)
		event_fire(timer.wake);
	pthread_mutex_unlock(&timer.lock);
}

void timer_insert(struct message *m)
{
	struct sched_queue *q = m->queue;
	sched_metrics_add(&q->scheduled, 1);
	pthread_mutex_lock(&timer.lock);
	wheel_insert(&timer.wheel, m);
	timer.n_deferred += m->n_deferred_bytes != 0;
	if (timer.wake != NULL && m->due.ns < timer.sleeps_until.ns)
		event_fire(timer.wake);
	pthread_mutex_unlock(&timer.lock);
}

void timer_take_deferred(struct deferred_take *t)
{
	struct deferred_take here = *t;
	list_init(&here.messages);
	pthread_mutex_lock(&timer.lock);
	for (int l = 0; l < WHEEL_LEVELS && timer.n_deferred > 0; l++)
		for (int s = 0; s < WHEEL_SLOTS && !here.is_full; s++)
			deferred_take_from(&here, &timer.wheel.slot[l][s]);
	timer.wheel.n -= here.n - t->n; /* as wheel_remove would have it */
	timer.n_deferred -= here.n - t->n;
	pthread_mutex_unlock(&timer.lock);
	list_for_each (it, &here.messages) {
		struct sched_queue *q = list_entry(it, struct message, link)->queue;
		sched_metrics_add(&q->scheduled, -1);
	}
	list_splice_back(&t->messages, &here.messages);
	t->n = here.n, t->n_bytes = here.n_bytes, t->is_full = here.is_full;
}

uint64_t timer_count(void)
{
	pthread_mutex_lock(&timer.lock);
	uint64_t n = timer.wheel.n;
	pthread_mutex_unlock(&timer.lock);
	return n;
}

void timer_drop_all(void)
{
	for (int l = 0; l < WHEEL_LEVELS; l++)
		for (int s = 0; s < WHEEL_SLOTS; s++)
			for (struct list *n; (n = list_pop_front(&timer.wheel.slot[l][s])) != NULL;)
				message_unref(list_entry(n, struct message, link));
	metric_add(queue_metric_scheduled_total(), -(int64_t)timer.wheel.n);
	timer.wheel.n = 0;
}
