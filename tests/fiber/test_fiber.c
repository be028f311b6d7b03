/* Fibers of one worker: switching, waiting, cancel, time-outs, groups, names, virtual time, crowds. */
#include "fiber_check.h"

#include <dirent.h>
#include <string.h>

static int setup(void **state)
{
	workers_start(1);
	return 0;
}

static int teardown(void **state)
{
	workers_stop(mono_after(dur_s(10)));
	return 0;
}

static mono_t soon(void)
{
	return mono_after(dur_s(20));
}

/* --- switching --- */

struct yielder {
	int n, n_other_seen;
	int *shared;
};

static void yielder_run(void *arg)
{
	struct yielder *y = arg;
	for (int i = 0; i < y->n; i++) {
		int before = ++*y->shared;
		fiber_yield();
		if (*y->shared != before)
			y->n_other_seen++;
	}
}

static int count_threads(void)
{
	int n = 0;
	DIR *d = opendir("/proc/self/task");
	CHECK(d != NULL);
	for (struct dirent *e; (e = readdir(d)) != NULL;)
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

static void switches_run(void *arg)
{
	struct fiber_group g;
	int shared = 0, n_threads = count_threads();
	struct yielder y[2] = {{.n = 500000, .shared = &shared}, {.n = 500000, .shared = &shared}};

	fiber_group_init(&g);
	for (int i = 0; i < 2; i++)
		fiber_start(&g, "yielder", yielder_run, &y[i]);
	CHECK(shared == 0); /* none has run yet */
	CHECK(g.n == 2);
	fiber_yield();
	CHECK(count_threads() == n_threads);
	CHECK(fiber_group_join(&g, MONO_NEVER) == 0);
	CHECK(shared == 1000000);
	CHECK(y[0].n_other_seen > 400000 && y[1].n_other_seen > 400000);
}

static void test_million_switches(void **state)
{
	worker_run(switches_run, NULL);
}

/* --- order --- */

struct order {
	char text[16];
	size_t n;
};
struct order_step {
	struct order *order;
	char c;
};

static void order_run(void *arg)
{
	struct order_step *s = arg;
	s->order->text[s->order->n++] = s->c;
	fiber_yield();
	s->order->text[s->order->n++] = s->c;
}

static void order_main(void *arg)
{
	struct fiber_group g;
	struct order o = {.n = 0};
	struct order_step step[3] = {{&o, 'a'}, {&o, 'b'}, {&o, 'c'}};
	fiber_group_init(&g);
	for (int i = 0; i < 3; i++)
		fiber_start(&g, "step", order_run, &step[i]);
	CHECK(fiber_group_join(&g, soon()) == 0);
	CHECK(o.n == 6 && memcmp(o.text, "abcabc", 6) == 0);
}

static void test_fifo_order(void **state)
{
	worker_run(order_main, NULL);
}

/* --- waiters --- */

static void wake_it(void *arg)
{
	waiter_wake(arg);
}

static void waiter_main(void *arg)
{
	struct waiter w;
	struct fiber_group g;

	waiter_init(&w);
	waiter_wake(&w);
	CHECK(fiber_wait(&w, (mono_t){0}) == 0); /* remembered, even with a deadline that is past */
	CHECK_FAILS(fiber_wait(&w, (mono_t){0}), ERR_TIMEOUT); /* and used up */
	CHECK_FAILS(fiber_wait(&w, mono_after(dur_ms(2))), ERR_TIMEOUT);

	fiber_group_init(&g);
	fiber_start(&g, "waker", wake_it, &w);
	CHECK(fiber_wait(&w, soon()) == 0);
	CHECK(fiber_group_join(&g, soon()) == 0);

	waiter_wake(&w); /* nobody waits any more: harmless, remembered */
	CHECK(fiber_wait(&w, MONO_NEVER) == 0);
}

static void test_wake_before_wait(void **state)
{
	worker_run(waiter_main, NULL);
}

/* A wake and a cancel (or time-out) in the same turn: the wake wins. */
struct contest {
	struct waiter w;
	int rc, rc_next;
	bool has_begun;
};

static void contest_run(void *arg)
{
	struct contest *c = arg;
	c->has_begun = true;
	c->rc = fiber_wait(&c->w, soon());
	c->rc_next = fiber_sleep(dur_s(100), MONO_NEVER);
	err_clear();
}

static void contest_main(void *arg)
{
	struct fiber_group g;
	struct contest c = {.rc = 7};
	fiber_group_init(&g);
	waiter_init(&c.w);
	struct fiber *f = fiber_start(&g, "contest", contest_run, &c);
	fiber_yield();
	CHECK(c.has_begun);
	fiber_cancel(f);
	waiter_wake(&c.w);
	CHECK(fiber_group_join(&g, soon()) == 0);
	CHECK(c.rc == 0 && c.rc_next == -1);
}

static void test_wake_wins(void **state)
{
	worker_run(contest_main, NULL);
}

/* --- sleeping, deadlines, cancel --- */

struct victim {
	struct fiber_group *group; /* to join, or NULL to sleep */
	struct waiter *waiter;	   /* to wait for, or NULL */
	enum err_kind kind;
	bool was_cancelled;
};

static void victim_run(void *arg)
{
	struct victim *v = arg;
	int rc = v->group != NULL    ? fiber_group_join(v->group, MONO_NEVER)
		 : v->waiter != NULL ? fiber_wait(v->waiter, MONO_NEVER)
				     : fiber_sleep(dur_s(1000), MONO_NEVER);
	CHECK(rc == -1);
	v->kind = err_kind();
	v->was_cancelled = fiber_is_cancelled();
	/* every further wait fails at once */
	struct waiter w;
	waiter_init(&w);
	CHECK_FAILS(fiber_wait(&w, MONO_NEVER), ERR_CANCELLED);
	CHECK_FAILS(fiber_sleep(dur_ms(1), MONO_NEVER), ERR_CANCELLED);
	/* unless shielded */
	fiber_shield_begin();
	CHECK(fiber_sleep(dur_ms(1), MONO_NEVER) == 0);
	fiber_shield_end();
	CHECK_FAILS(fiber_sleep(dur_ms(1), MONO_NEVER), ERR_CANCELLED);
}

static void cancel_main(void *arg)
{
	struct fiber_group g, others;
	struct waiter never;
	waiter_init(&never);
	fiber_group_init(&g);
	fiber_group_init(&others);
	struct fiber *sleeper = fiber_start(&others, "other", victim_run, &(struct victim){.waiter = &never});
	struct victim v[3] = {{.group = &others}, {.waiter = &(struct waiter){0}}, {.group = NULL}};
	waiter_init(v[1].waiter);
	for (int i = 0; i < 3; i++)
		fiber_start(&g, "victim", victim_run, &v[i]);
	fiber_yield();
	CHECK_FAILS(fiber_group_join(&g, mono_after(dur_ms(5))), ERR_TIMEOUT);
	CHECK(g.n == 3);
	fiber_group_cancel(&g);
	CHECK(g.n == 3); /* none has run */
	CHECK(fiber_group_join(&g, soon()) == 0);
	for (int i = 0; i < 3; i++)
		CHECK(v[i].kind == ERR_CANCELLED && v[i].was_cancelled);
	CHECK(others.n == 1);
	fiber_cancel(sleeper);
	CHECK(fiber_group_join(&others, soon()) == 0);
	CHECK(fiber_group_join(&others, soon()) == 0); /* an empty group is joined at once */
}

static void test_cancel(void **state)
{
	worker_run(cancel_main, NULL);
}

static void never_begins(void *arg)
{
	CHECK_FAILS(fiber_sleep(dur_s(1), MONO_NEVER), ERR_CANCELLED);
	*(bool *)arg = true;
}

static void cancel_unborn_main(void *arg)
{
	struct fiber_group g;
	bool has_run = false;
	fiber_group_init(&g);
	fiber_cancel(fiber_start(&g, "unborn", never_begins, &has_run));
	CHECK(fiber_group_join(&g, soon()) == 0);
	CHECK(has_run); /* it runs, so it can clean up; its waits fail */
}

static void test_cancel_before_first_run(void **state)
{
	worker_run(cancel_unborn_main, NULL);
}

struct shielded {
	struct waiter w;
	bool has_finished;
};

static void shielded_run(void *arg)
{
	struct shielded *s = arg;
	fiber_shield_begin();
	fiber_shield_begin();
	CHECK(fiber_wait(&s->w, soon()) == 0);
	fiber_shield_end();
	CHECK(fiber_sleep(dur_us(10), soon()) == 0); /* still one deep */
	fiber_shield_end();
	CHECK(fiber_is_cancelled());
	CHECK_FAILS(fiber_sleep(dur_us(10), soon()), ERR_CANCELLED);
	s->has_finished = true;
}

static void shield_main(void *arg)
{
	struct fiber_group g;
	struct shielded s = {.has_finished = false};
	fiber_group_init(&g);
	waiter_init(&s.w);
	struct fiber *f = fiber_start(&g, "shielded", shielded_run, &s);
	fiber_yield();
	fiber_cancel(f);
	for (int i = 0; i < 100; i++)
		fiber_yield();
	CHECK(g.n == 1 && !s.has_finished);
	waiter_wake(&s.w);
	CHECK(fiber_group_join(&g, soon()) == 0);
	CHECK(s.has_finished);
}

static void test_shield(void **state)
{
	worker_run(shield_main, NULL);
}

static void sleep_main(void *arg)
{
	mono_t t0 = mono_now();
	CHECK(fiber_sleep(dur_ms(20), MONO_NEVER) == 0);
	CHECK(mono_sub(mono_now(), t0).ns >= dur_ms(20).ns);
	t0 = mono_now();
	CHECK_FAILS(fiber_sleep(dur_s(1000), mono_after(dur_ms(20))), ERR_TIMEOUT);
	CHECK(mono_sub(mono_now(), t0).ns >= dur_ms(20).ns && mono_sub(mono_now(), t0).ns < dur_s(500).ns);
	CHECK(fiber_sleep(DUR_ZERO, MONO_NEVER) == 0);
	CHECK(fiber_sleep(dur_ms(-5), MONO_NEVER) == 0);
}

static void test_sleep(void **state)
{
	worker_run(sleep_main, NULL);
}

/* Many deadlines in random order: they end in order of time. */
struct heap_sleeper {
	dur_t d;
	mono_t t0;
	int64_t *last_ns;
	bool is_victim;
};

static void heap_sleeper_run(void *arg)
{
	struct heap_sleeper *s = arg;
	int rc = fiber_sleep(s->d, MONO_NEVER);
	if (s->is_victim) {
		CHECK_FAILS(rc, ERR_CANCELLED);
		return;
	}
	CHECK(rc == 0);
	CHECK(s->d.ns >= *s->last_ns);
	*s->last_ns = s->d.ns;
}

static void heap_main(void *arg)
{
	enum { N = 2000 };
	static struct heap_sleeper s[N];
	static struct fiber *f[N];
	struct fiber_group g;
	int64_t last_ns = 0;
	unsigned seed = 12345;

	clock_set_virtual((mono_t){NS_PER_S}, (wall_t){0});
	worker_clock_changed();
	fiber_group_init(&g);
	for (int i = 0; i < N; i++) {
		s[i] = (struct heap_sleeper){.d = dur_ms(rand_r(&seed) % 100000 + 1), .last_ns = &last_ns};
		f[i] = fiber_start(&g, "sleeper", heap_sleeper_run, &s[i]);
	}
	for (int i = 0; i < 20; i++)
		fiber_yield();
	for (int i = 0; i < N; i += 3) {
		s[i].is_victim = true;
		fiber_cancel(f[i]);
	}
	for (int i = 0; i < 100; i++) {
		clock_advance(dur_s(1));
		worker_clock_changed();
		for (int y = 0; y < 300; y++) /* more than a turn */
			fiber_yield();
	}
	CHECK(fiber_group_join(&g, MONO_NEVER) == 0);
	clock_set_real();
	worker_clock_changed();
}

static void test_deadline_heap(void **state)
{
	worker_run(heap_main, NULL);
}

/* --- virtual time --- */

static void day_sleeper(void *arg)
{
	CHECK(fiber_sleep(dur_s(86400), MONO_NEVER) == 0);
	*(bool *)arg = true;
}

static void virtual_main(void *arg)
{
	struct fiber_group g;
	bool has_woken = false;
	fiber_group_init(&g);
	clock_set_virtual((mono_t){5}, (wall_t){0});
	worker_clock_changed();
	fiber_start(&g, "day", day_sleeper, &has_woken);
	for (int i = 0; i < 1000; i++) /* several turns of the loop */
		fiber_yield();
	CHECK(!has_woken);
	clock_advance(dur_s(86399));
	worker_clock_changed();
	for (int i = 0; i < 1000; i++)
		fiber_yield();
	CHECK(!has_woken && g.n == 1);
	clock_advance(dur_s(1));
	worker_clock_changed();
	CHECK(fiber_group_join(&g, MONO_NEVER) == 0);
	CHECK(has_woken);
	/* a deadline that is past already ends without help */
	CHECK_FAILS(fiber_sleep(dur_s(5), (mono_t){1}), ERR_TIMEOUT);
	clock_set_real();
	worker_clock_changed();
	CHECK(fiber_sleep(dur_ms(1), MONO_NEVER) == 0);
}

static void test_virtual_time(void **state)
{
	worker_run(virtual_main, NULL);
}

/* --- error slots --- */

static void err_run(void *arg)
{
	const char *text = arg;
	CHECK(err_kind() == ERR_NONE);
	err_set(ERR_INVALID, "%s", text);
	for (int i = 0; i < 10; i++) {
		fiber_yield();
		CHECK(strcmp(err_text(), text) == 0);
	}
	/* left in the slot: the fiber's end drops it */
}

static void err_main(void *arg)
{
	struct fiber_group g;
	fiber_group_init(&g);
	err_set(ERR_IO, "mine");
	for (int i = 0; i < 3; i++) {
		fiber_start(&g, "one", err_run, (char[]){"one"});
		fiber_start(&g, "two", err_run, (char[]){"two"});
		CHECK(fiber_group_join(&g, soon()) == 0);
		CHECK(strcmp(err_text(), "mine") == 0);
	}
	err_clear();
}

static void test_error_slots(void **state)
{
	worker_run(err_main, NULL);
}

/* --- names and information --- */

struct seen {
	uint64_t id[64];
	int n, n_parked, n_running;
};

static void see(const struct fiber_info *fi, void *arg)
{
	struct seen *s = arg;
	for (int i = 0; i < s->n; i++)
		CHECK(s->id[i] != fi->id);
	s->id[s->n++] = fi->id;
	if (strcmp(fi->name, "parked-with-a-name-that-is-too-") == 0) {
		CHECK(strcmp(fi->waits_for, "read") == 0);
		CHECK(fi->waiting.ns >= 0 && fi->waiting.ns < dur_s(100).ns);
		s->n_parked++;
	}
	if (strcmp(fi->name, "teller") == 0)
		s->n_running++;
}

static void parked_run(void *arg)
{
	CHECK(fiber_set_waits_for("read") == NULL);
	CHECK(fiber_wait(arg, soon()) == 0);
	CHECK(strcmp(fiber_set_waits_for(NULL), "read") == 0);
}

static void info_main(void *arg)
{
	struct fiber_group g;
	struct waiter w[5];
	struct seen s = {.n = 0};
	fiber_group_init(&g);
	fiber_set_name("teller");
	CHECK(strcmp(fiber_name(fiber_self()), "teller") == 0);
	for (int i = 0; i < 5; i++) {
		waiter_init(&w[i]);
		fiber_start(&g, "parked-with-a-name-that-is-too-long-by-far", parked_run, &w[i]);
	}
	fiber_yield();
	fiber_each(see, &s);
	CHECK(s.n_parked == 5 && s.n_running == 1);
	for (int i = 0; i < 5; i++)
		waiter_wake(&w[i]);
	CHECK(fiber_group_join(&g, soon()) == 0);
}

static void test_information(void **state)
{
	worker_run(info_main, NULL);
}

static void test_outside_of_fibers(void **state)
{
	assert_null(fiber_self());
	assert_null(worker_self());
	assert_false(fiber_is_cancelled());
}

/* --- crowds --- */

static size_t resident_bytes(void)
{
	size_t n_total = 0, n_resident = 0;
	FILE *f = fopen("/proc/self/statm", "r");
	CHECK(f != NULL);
	CHECK(fscanf(f, "%zu %zu", &n_total, &n_resident) == 2);
	fclose(f);
	return n_resident * 4096;
}

struct crowd {
	struct list waiters;
	size_t n_in, n_out;
};

static void crowd_run(void *arg)
{
	struct crowd *c = arg;
	struct waiter w;
	waiter_init(&w);
	list_push_back(&c->waiters, &w.link);
	c->n_in++;
	CHECK(fiber_wait(&w, soon()) == 0);
	c->n_out++;
}

static void crowd_main(void *arg)
{
	/* ThreadSanitizer knows at most 8,000 contexts. */
	const size_t n = CHECK_IS_SANITIZED ? 3000 : 10000;
	struct crowd c = {.n_in = 0};
	struct fiber_group g;
	size_t before_bytes = resident_bytes();

	list_init(&c.waiters);
	fiber_group_init(&g);
	for (size_t i = 0; i < n; i++)
		fiber_start(&g, "crowd", crowd_run, &c);
	while (c.n_in < n)
		fiber_yield();
	size_t parked_bytes = resident_bytes();
	CHECK(CHECK_IS_SANITIZED || parked_bytes - before_bytes < n * 3 * 4096);
	for (struct list *l; (l = list_pop_front(&c.waiters)) != NULL;)
		waiter_wake(list_entry(l, struct waiter, link));
	CHECK(fiber_group_join(&g, soon()) == 0);
	CHECK(c.n_out == n);
	size_t after_bytes = resident_bytes();
	print_message("%zu fibers: %zu KB more when parked, %zu KB more after\n", n,
		      (parked_bytes - before_bytes) / 1024,
		      after_bytes > before_bytes ? (after_bytes - before_bytes) / 1024 : 0);
	CHECK(CHECK_IS_SANITIZED || after_bytes < before_bytes + (16 << 20));
}

static void test_crowd(void **state)
{
	worker_run(crowd_main, NULL); /* new stacks */
	worker_run(crowd_main, NULL); /* warm and cold ones from the pool, and new ones */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_outside_of_fibers),
		cmocka_unit_test(test_million_switches),
		cmocka_unit_test(test_fifo_order),
		cmocka_unit_test(test_wake_before_wait),
		cmocka_unit_test(test_wake_wins),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_cancel_before_first_run),
		cmocka_unit_test(test_shield),
		cmocka_unit_test(test_sleep),
		cmocka_unit_test(test_deadline_heap),
		cmocka_unit_test(test_virtual_time),
		cmocka_unit_test(test_error_slots),
		cmocka_unit_test(test_information),
		cmocka_unit_test(test_crowd),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
