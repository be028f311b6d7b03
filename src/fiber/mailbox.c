/* mailbox.c - how anything crosses threads. A worker's inbox is a stack of mails in one atomic word: any
 * thread pushes a chain with a compare-and-swap, the owner takes everything with an exchange and turns it
 * round, which gives FIFO per sender. Workers collect the posts of a turn per peer and push each collection
 * at once.
 *
 * Waking: the owner sets is_polling before its loop may block and then looks at the inbox once more; a sender
 * pushes and then looks at is_polling. Both are sequentially consistent, so at least one sees the other. Only
 * the push that finds the inbox empty sends a wake-up: a later one knows that either that wake-up or the
 * owner's own turn is coming.
 *
 * After mailbox_close() a worker takes no mail; what is still posted to it
 * (late offload jobs) stays in the inbox and is dropped by mailbox_reap().
 * struct worker itself is never freed, so a late post is always safe. */
#include "base/alloc.h"
#include "base/fault.h"
#include "fiber/fiber_impl.h"

#include <sched.h>

#define MAIL_TURN_MAX 4096 /* delivered in one turn, so that I/O is not starved */

struct posted {
	struct mail mail;
	mail_fn *fn;
	void *arg;
};

static void mailbox_on_async(uv_async_t *h UNUSED)
{
	/* Only there to end the poll; the next turn takes the mail. */
}

void mailbox_init(struct worker *w, unsigned n_workers)
{
	w->out = xcalloc(n_workers, sizeof(*w->out));
	w->n_out = 0;
	atomic_store(&w->inbox, NULL);
	uv_async_init(&w->loop, &w->async, mailbox_on_async);
	atomic_store(&w->is_polling, false);
	atomic_store(&w->is_closed, false);
}

void mailbox_close(struct worker *w)
{
	atomic_store(&w->is_closed, true);
	while (atomic_load(&w->n_wakers) > 0) /* each is a write(2) away from leaving */
		sched_yield();
	uv_close((uv_handle_t *)&w->async, NULL);
}

void mailbox_fini(struct worker *w)
{
	free(w->out);
	w->out = NULL;
}

/* --- sending --- */

static void mailbox_wake(struct worker *w)
{
	atomic_fetch_add(&w->n_wakers, 1);
	if (!atomic_load(&w->is_closed))
		uv_async_send(&w->async);
	atomic_fetch_sub(&w->n_wakers, 1);
}

static void mailbox_push(struct worker *w, struct mail *newest, struct mail *oldest)
{
	struct mail *head = atomic_load_explicit(&w->inbox, memory_order_relaxed);
	do
		oldest->next = head;
	while (!atomic_compare_exchange_weak(&w->inbox, &head, newest));
	if (head == NULL && atomic_load(&w->is_polling))
		mailbox_wake(w);
}

void worker_post_mail(struct worker *w, struct mail *m)
{
	struct worker *self = worker_self();
	if (self == NULL || self->out == NULL) {
		mailbox_push(w, m, m);
		return;
	}
	struct outbox *o = &self->out[w->index];
	m->next = o->newest;
	o->newest = m;
	if (o->oldest == NULL) {
		o->oldest = m;
		self->n_out++;
	}
}

static void posted_run(void *arg)
{
	struct posted *p = arg;
	mail_fn *fn = p->fn;
	void *fn_arg = p->arg;
	free(p);
	fn(fn_arg);
}

void worker_post(struct worker *w, mail_fn *fn, void *arg)
{
	struct posted *p = xnew(struct posted);
	p->mail.fn = posted_run;
	p->mail.arg = p;
	p->fn = fn, p->arg = arg;
	worker_post_mail(w, &p->mail);
}

void mailbox_flush(struct worker *w)
{
	for (unsigned i = 0; w->n_out > 0; i++) {
		struct outbox o = w->out[i];
		if (o.newest == NULL)
			continue;
		w->out[i] = (struct outbox){NULL, NULL};
		w->n_out--;
		mailbox_push(&workers_all[i], o.newest, o.oldest);
	}
}

/* --- receiving --- */

bool mailbox_has_mail(struct worker *w)
{
	return w->due != NULL || atomic_load_explicit(&w->inbox, memory_order_relaxed) != NULL;
}

static void mailbox_take(struct worker *w)
{
	struct mail *m = atomic_exchange_explicit(&w->inbox, NULL, memory_order_acquire), *next;
	for (; m != NULL; m = next) {
		next = m->next;
		m->next = w->due;
		w->due = m;
	}
}

void mailbox_drain(struct worker *w)
{
	if (!mailbox_has_mail(w))
		return;
	w->is_mail_delayed = !w->is_mail_delayed && FAULT(mailbox);
	if (w->is_mail_delayed)
		return;
	if (w->due == NULL)
		mailbox_take(w);
	for (int i = 0; i < MAIL_TURN_MAX && w->due != NULL; i++) {
		struct mail *m = w->due;
		w->due = m->next;
		m->fn(m->arg); /* may free or reuse m */
	}
}

bool mailbox_begin_poll(struct worker *w)
{
	atomic_store(&w->is_polling, true);
	if (atomic_load(&w->inbox) == NULL)
		return true;
	atomic_store_explicit(&w->is_polling, false, memory_order_relaxed);
	return false;
}

void mailbox_end_poll(struct worker *w)
{
	atomic_store_explicit(&w->is_polling, false, memory_order_relaxed);
}

void mailbox_reap(struct worker *w)
{
	mailbox_take(w);
	for (struct mail *m = w->due, *next; m != NULL; m = next) {
		next = m->next;
		if (m->fn == posted_run || m->fn == worker_start_arrived)
			free(m->arg);
		else if (m->fn == event_deliver)
			event_unref(m->arg);
	}
	w->due = NULL;
}
