/* Timer wheel: never early, at most a tick late, over every level, against a plain list. */
#include "ut.h"

#include "base/uuid.h"
#include "queue/wheel.h"

#define TICK dur_ms(250)

static wall_t at(int64_t ms)
{
	return (wall_t){INT64_C(1790000000) * NS_PER_S + ms * 1000000};
}

static size_t drain(struct list *due, struct wheel *w, wall_t now, wall_t before)
{
	size_t n = 0;
	wheel_advance(w, now, due);
	for (struct list *l; (l = list_pop_front(due)) != NULL; n++) {
		struct message *m = list_entry(l, struct message, link);
		assert_true(m->due.ns <= now.ns);
		assert_true(m->due.ns > before.ns - 2 * TICK.ns);
	}
	return n;
}

static void test_spread(void **state)
{
	enum { N = 20000 };
	static struct message m[N];
	static struct wheel w;
	struct list due;
	wall_t now = at(0);
	list_init(&due);
	wheel_init(&w, now);
	for (int i = 0; i < N; i++) { /* up to a year off, most of them near */
		uint64_t span = i % 4 == 0   ? 31536000000
				: i % 4 == 1 ? 86400000
				: i % 4 == 2 ? 3600000
					     : 2000;
		m[i].due = at((int64_t)random_below(span));
		list_init(&m[i].link);
		wheel_insert(&w, &m[i]);
	}
	size_t n_out = 0;
	while (w.n > 0) {
		dur_t next = wheel_next(&w, now);
		assert_true(next.ns < INT64_MAX && next.ns >= 0);
		wall_t before = now;
		now = wall_add(now, next);
		n_out += drain(&due, &w, now, before);
	}
	assert_int_equal(n_out, N);
	assert_int_equal(wheel_next(&w, now).ns, INT64_MAX);
}

static void test_not_early_and_not_later_than_a_tick(void **state)
{
	static struct wheel w;
	struct list due;
	list_init(&due);
	for (int64_t ms = 1; ms < 200000; ms = ms * 3 / 2 + 1) {
		struct message m = {.due = at(ms)};
		wheel_init(&w, at(0));
		list_init(&m.link);
		wheel_insert(&w, &m);
		wheel_advance(&w, at(ms - 1), &due);
		assert_true(list_is_empty(&due));
		wheel_advance(&w, wall_add(at(ms), TICK), &due);
		assert_ptr_equal(list_pop_front(&due), &m.link);
		assert_int_equal(w.n, 0);
	}
}

static void test_past_due_comes_with_the_next_tick(void **state)
{
	static struct wheel w;
	struct list due;
	struct message m = {.due = at(-5000)};
	list_init(&due);
	list_init(&m.link);
	wheel_init(&w, at(0));
	wheel_insert(&w, &m);
	wheel_advance(&w, at(250), &due);
	assert_ptr_equal(list_pop_front(&due), &m.link);
}

static void test_remove(void **state)
{
	static struct wheel w;
	static struct message m[100];
	struct list due;
	list_init(&due);
	wheel_init(&w, at(0));
	for (int i = 0; i < 100; i++) {
		m[i].due = at(i * 1000);
		list_init(&m[i].link);
		wheel_insert(&w, &m[i]);
	}
	for (int i = 0; i < 100; i += 2)
		wheel_remove(&w, &m[i]);
	wheel_advance(&w, at(200000), &due);
	for (int i = 1; i < 100; i += 2)
		assert_ptr_equal(list_pop_front(&due), &m[i].link);
	assert_true(list_is_empty(&due));
	assert_int_equal(w.n, 0);
}

static void test_rebuild_after_the_clock_was_set_back(void **state)
{
	enum { N = 500 };
	static struct wheel w;
	static struct message m[N];
	struct list due;
	list_init(&due);
	wheel_init(&w, at(3600000));
	for (int i = 0; i < N; i++) {
		m[i].due = at(i * 10000); /* some before the new time, some after the old one */
		list_init(&m[i].link);
		wheel_insert(&w, &m[i]);
	}
	wheel_rebuild(&w, at(1000000));
	assert_int_equal(w.n, N);
	wheel_advance(&w, at(1000250), &due);
	size_t n = 0;
	for (struct list *l; (l = list_pop_front(&due)) != NULL; n++)
		assert_true(list_entry(l, struct message, link)->due.ns <= at(1000250).ns);
	assert_int_equal(n, 101);
	assert_int_equal(drain(&due, &w, at(N * 10000), at(0)), N - 101);
	assert_int_equal(w.n, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_spread), cmocka_unit_test(test_not_early_and_not_later_than_a_tick),
		cmocka_unit_test(test_past_due_comes_with_the_next_tick), cmocka_unit_test(test_remove),
		cmocka_unit_test(test_rebuild_after_the_clock_was_set_back)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
