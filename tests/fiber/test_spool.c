/* test_spool.c - the journal as its users see it: what was put comes back, after restarts too; removals stay
 * removed while segments are rotated, compacted and unlinked; failures of each durable step are told and
 * survived. */
#include "fiber_check.h"

#include "base/fault.h"
#include "fiber/sync.h"
#include "spool_place.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

struct seen {
	uint32_t n;
	uint32_t number[5000];
	uint16_t version[5000];
};

static void see(struct message *m, void *arg)
{
	struct seen *s = arg;
	CHECK(model_differs(m, 0) == NULL && m->is_spooled && m->body == NULL);
	CHECK(s->n < ARRAY_SIZE(s->number));
	s->number[s->n] = model_number(&m->id);
	s->version[s->n++] = m->n_attempts;
	message_unref(m);
}

/* ---- one after the other ---- */

static void basic_first(void *arg)
{
	struct spool *sp = arg;
	put_numbers(sp, 1, 100);
	CHECK(stats_of(sp).n_messages == 100);

	struct message *m = model_message(7, 0, NULL);
	message_set_body(m, NULL);
	CHECK(spool_load_body(sp, m, SOON) == 0);
	CHECK(model_differs(m, 7) == NULL && m->body != NULL);
	model_dress(m, 7, 3);
	spool_update(sp, m);
	message_unref(m);

	struct uuid gone = model_id(9), never = model_id(12345);
	spool_remove(sp, &gone);
	spool_remove(sp, &gone);
	spool_remove(sp, &never);
	m = model_message(12345, 1, NULL);
	spool_update(sp, m); /* not stored: nothing happens */
	message_unref(m);
	put_numbers(sp, 101, 1); /* in the queue behind those */

	m = spool_load(sp, &(struct uuid){.b = {1}}, SOON);
	CHECK(m == NULL && err_is(ERR_NOT_FOUND));
	CHECK(spool_load(sp, &gone, SOON) == NULL && err_is(ERR_NOT_FOUND));
	err_clear();
	struct uuid id = model_id(7);
	m = spool_load(sp, &id, SOON);
	CHECK(m != NULL && m->n_attempts == 3 && model_differs(m, 7) == NULL);
	message_unref(m);
	CHECK(stats_of(sp).n_messages == 100);
	CHECK(spool_health(sp) == NULL);
}

static void basic_second(void *arg)
{
	struct spool *sp = arg;
	static struct seen s;
	CHECK(spool_enumerate(sp, see, &s, SOON) == 0);
	CHECK(s.n == 100);
	for (uint32_t i = 0; i < s.n; i++)
		CHECK(s.number[i] != 9 && s.version[i] == (s.number[i] == 7 ? 3 : 0));
	/* in order of storage: the update of 7 came after 100, and before 101 */
	CHECK(s.number[0] == 1 && s.number[97] == 100 && s.number[98] == 7 && s.number[99] == 101);
	struct uuid id = model_id(64);
	struct message *m = spool_load(sp, &id, SOON);
	CHECK(m != NULL && m->body != NULL && model_differs(m, 64) == NULL);
	message_unref(m);
	s.n = 0;
	CHECK(spool_enumerate(sp, see, &s, SOON) == 0 && s.n == 0); /* once */
}

static void test_basic(void **state)
{
	struct spool *sp = open_spool(0);
	worker_run(basic_first, sp);
	assert_null(spool_open_journal(&(struct spool_params){.name = STR("second"), .path = str_of(dir)}));
	assert_true(err_is(ERR_EXISTS));
	char pid[32];
	snprintf(pid, sizeof pid, "process %d", (int)getpid());
	assert_non_null(strstr(err_text(), pid));
	err_clear();
	spool_close(sp);
	sp = open_spool(0);
	worker_run(basic_second, sp);
	spool_close(sp);
}

static void shared_main(void *arg)
{
	struct spool *sp = arg;
	struct body *b = model_body(500);
	static struct message *m[1000];
	for (uint32_t i = 0; i < 1000; i++)
		m[i] = model_message(i + 1, 0, i % 10 == 9 ? NULL : b);
	CHECK(spool_put(sp, m, 1000, SOON) == 0);
	struct spool_stats st = stats_of(sp);
	CHECK(st.n_messages == 1000);
	uint64_t bodies = b->n_bytes;
	for (uint32_t i = 9; i < 1000; i += 10)
		bodies += m[i]->body->n_bytes;
	CHECK(st.n_bytes_live < bodies + 1000 * 400);
	for (uint32_t i = 0; i < 1000; i++)
		message_unref(m[i]);
	for (uint32_t i = 1; i < 999; i++) {
		struct uuid id = model_id(i);
		if (i != 10)
			spool_remove(sp, &id);
	}
	/* a put again: of metadata alone, then with another body */
	struct message *again = model_message(10, 4, b);
	message_set_body(again, NULL);
	CHECK(spool_put(sp, &again, 1, SOON) == 0);
	struct uuid id = model_id(10), last = model_id(999);
	struct message *got = spool_load(sp, &id, SOON);
	CHECK(got != NULL && got->n_attempts == 4 && model_differs(got, 10) == NULL);
	message_unref(got);
	message_set_body(again, b);
	CHECK(spool_put(sp, &again, 1, SOON) == 0);
	got = spool_load(sp, &id, SOON);
	CHECK(got != NULL && model_differs(got, 500) == NULL);
	message_unref(got);
	got = spool_load(sp, &last, SOON);
	CHECK(got != NULL && model_differs(got, 500) == NULL);
	message_unref(got);
	message_unref(again);
	/* without a body and not stored: refused, and so is its whole put */
	struct message *two[2] = {model_message(2001, 0, NULL), model_message(2002, 0, NULL)};
	message_set_body(two[1], NULL);
	CHECK_FAILS(spool_put(sp, two, 2, SOON), ERR_NOT_FOUND);
	CHECK(!two[0]->is_spooled);
	CHECK(stats_of(sp).n_messages == 3);
	message_unref(two[0]);
	message_unref(two[1]);
	body_unref(b);
}

static void test_shared_bodies(void **state)
{
	struct spool *sp = open_spool(0);
	worker_run(shared_main, sp);
	spool_close(sp);
	sp = open_spool(0);
	assert_int_equal(stats_of(sp).n_messages, 3);
	assert_int_equal(stats_of(sp).n_damaged, 0);
	spool_close(sp);
}

/* ---- keys ---- */

#define A_DAY wall_add(wall_now(), dur_s(86400))

/* A key, and n messages from number on. */
static int put_key(struct spool *sp, uint32_t number, uint16_t version, uint32_t n, wall_t expires,
		   mono_t deadline)
{
	struct message *m[8];
	struct buf answer = BUF_INIT;
	struct spool_key k = model_key(number, version, expires, &answer);
	for (uint32_t i = 0; i < n; i++)
		m[i] = model_message(number + i, version, NULL);
	int rc = spool_put_with_key(sp, m, n, &k, deadline);
	for (uint32_t i = 0; i < n; i++) {
		CHECK(m[i]->is_spooled == (rc == 0));
		message_unref(m[i]);
	}
	memset(answer.p, 'x', answer.n); /* the spool has taken what it needs */
	buf_fini(&answer);
	return rc;
}

static void keys_main(void *arg)
{
	struct spool *sp = arg;
	struct uuid id = model_key_id(100);
	CHECK(!spool_has_key(sp, &id) && model_key_look(sp, 100, SOON) == -1);
	for (uint32_t i = 100; i < 400; i += 10)
		CHECK(put_key(sp, i, 1, i / 10 % 4, A_DAY, SOON) == 0);
	CHECK(stats_of(sp).n_keys == 30);
	CHECK(spool_has_key(sp, &id));
	/* again, with other messages: the whole put is refused */
	struct message *m = model_message(900, 0, NULL);
	struct buf answer = BUF_INIT;
	struct spool_key k = model_key(100, 2, A_DAY, &answer);
	CHECK_FAILS(spool_put_with_key(sp, &m, 1, &k, SOON), ERR_EXISTS);
	CHECK(stats_of(sp).n_keys == 30 && !m->is_spooled);
	CHECK(spool_load(sp, &m->id, SOON) == NULL && err_is(ERR_NOT_FOUND));
	err_clear();
	message_unref(m);
	buf_fini(&answer);
	/* the messages come to their end, the keys stay */
	for (uint32_t i = 100; i < 400; i++) {
		id = model_id(i);
		spool_remove(sp, &id);
	}
	put_numbers(sp, 1000, 1);
	CHECK(stats_of(sp).n_messages == 1);
}

static void keys_check(void *arg)
{
	for (uint32_t i = 100; i < 400; i += 10)
		CHECK(model_key_look(arg, i, SOON) == 1);
	CHECK(model_key_look(arg, 101, SOON) == -1);
	CHECK(stats_of(arg).n_keys == 30 && stats_of(arg).n_damaged == 0);
}

static void test_keys(void **state)
{
	struct spool *sp = open_spool(0);
	worker_run(keys_main, sp);
	worker_run(keys_check, sp);
	for (int i = 0; i < 2; i++) {
		spool_close(sp);
		sp = open_spool(0);
		worker_run(keys_check, sp);
	}
	spool_close(sp);
}

static void key_limits_main(void *arg)
{
	struct spool *sp = arg;
	for (uint32_t i = 0; i < 10; i++)
		CHECK(put_key(sp, i * 10, 0, 1, A_DAY, SOON) == 0);
	CHECK_FAILS(put_key(sp, 500, 0, 1, A_DAY, SOON), ERR_LIMIT);
	CHECK(stats_of(sp).n_keys == 10 && stats_of(sp).n_messages == 10);
}

static void key_size_main(void *arg)
{
	struct spool *sp = arg;
	struct buf answer = BUF_INIT;
	struct spool_key k = model_key(500, 2, A_DAY, &answer);
	buf_clear(&answer);
	buf_reserve(&answer, SPOOL_ANSWER_MAX + 1);
	memset(answer.p, 'x', SPOOL_ANSWER_MAX + 1);
	k.answer = str_mk(answer.p, SPOOL_ANSWER_MAX + 1);
	CHECK_FAILS(spool_put_with_key(sp, NULL, 0, &k, SOON), ERR_LIMIT);
	CHECK(model_key_look(sp, 500, SOON) == -1);
	k.answer.n--;
	CHECK(spool_put_with_key(sp, NULL, 0, &k, SOON) == 0);
	struct buf bytes = BUF_INIT;
	struct spool_key got;
	CHECK(spool_load_key(sp, &k.id, &got, &bytes, SOON) == 0);
	CHECK(got.answer.n == SPOOL_ANSWER_MAX && got.answer.p[SPOOL_ANSWER_MAX - 1] == 'x' &&
	      got.expires.ns == k.expires.ns);
	buf_fini(&bytes);
	buf_fini(&answer);
}

static void test_key_limits(void **state)
{
	struct spool *sp = spool_open_journal(&(struct spool_params){.name = STR("test"),
								     .path = str_of(dir),
								     .is_flushed = true,
								     .segment_bytes = 1 << 20,
								     .max_keys = 10});
	assert_non_null(sp);
	worker_run(key_limits_main, sp);
	spool_close(sp);
	sp = open_spool(1 << 20);
	assert_int_equal(stats_of(sp).n_keys, 10);
	worker_run(key_size_main, sp);
	spool_close(sp);
	sp = open_spool(1 << 20);
	assert_int_equal(stats_of(sp).n_keys, 11);
	assert_int_equal(stats_of(sp).n_damaged, 0);
	spool_close(sp);
}

/* Short lives beside long ones. What is dead is not found from that moment on, then forgotten, and its bytes
 * come back. */
static void expiry_main(void *arg)
{
	struct spool *sp = arg;
	wall_t soon = wall_add(wall_now(), dur_ms(300));
	for (uint32_t i = 0; i < 1000; i++)
		CHECK(put_key(sp, i * 10, 0, i % 100 == 0, i % 10 == 0 ? A_DAY : soon, SOON) == 0);
	CHECK_FAILS(put_key(sp, 0, 1, 0, soon, SOON), ERR_EXISTS);
	while (wall_now().ns < soon.ns)
		CHECK(fiber_sleep(dur_ms(20), MONO_NEVER) == 0);
	for (uint32_t i = 0; i < 1000; i++) {
		struct uuid id = model_key_id(i * 10);
		CHECK(spool_has_key(sp, &id) == (i % 10 == 0));
		CHECK(model_key_look(sp, i * 10, SOON) == (i % 10 == 0 ? 0 : -1));
	}
	while (stats_of(sp).n_keys > 100) /* the writer finds them by itself */
		CHECK(fiber_sleep(dur_ms(20), MONO_NEVER) == 0);
	CHECK(stats_of(sp).n_keys == 100);
	CHECK(put_key(sp, 20, 2, 0, soon, SOON) == 0); /* dead at once: as if it had never been */
	CHECK(put_key(sp, 10, 2, 0, A_DAY, SOON) == 0);
	CHECK(stats_of(sp).n_keys == 101);
}

static void expiry_check(void *arg)
{
	struct spool *sp = arg;
	CHECK(stats_of(sp).n_keys == 101 && stats_of(sp).n_damaged == 0);
	for (uint32_t i = 0; i < 1000; i++)
		CHECK(model_key_look(sp, i * 10, SOON) == (i == 1 ? 2 : i % 10 == 0 ? 0 : -1));
}

static void expiry_end(void *arg)
{
	struct spool *sp = arg;
	wall_t soon = wall_add(wall_now(), dur_ms(100));
	for (uint32_t i = 0; i < 300; i++)
		CHECK(put_key(sp, 20000 + i * 10, 0, 0, soon, SOON) == 0);
	for (uint32_t i = 0; i < 1000; i += 100) {
		struct uuid id = model_id(i * 10);
		spool_remove(sp, &id);
	}
	while (wall_now().ns < soon.ns)
		CHECK(fiber_sleep(dur_ms(20), MONO_NEVER) == 0);
	CHECK(spool_compact(sp, SOON) == 0); /* does not wait for the writer to look by itself */
	CHECK(stats_of(sp).n_keys == 101 && stats_of(sp).n_messages == 0);
	while (stats_of(sp).n_bytes_disk > stats_of(sp).n_bytes_live * 5 / 4 + (192 << 10))
		CHECK(fiber_sleep(dur_ms(5), MONO_NEVER) == 0);
	expiry_check(sp);
}

static void test_key_expiry(void **state)
{
	struct spool *sp = open_spool(64 << 10);
	worker_run(expiry_main, sp);
	worker_run(expiry_check, sp);
	spool_close(sp);
	sp = open_spool(64 << 10);
	worker_run(expiry_check, sp);
	worker_run(expiry_end, sp);
	spool_close(sp);
}

/* Keys among much mail that comes and goes: they are carried along, and what they lay in is given back. */
static void key_compact_main(void *arg)
{
	struct spool *sp = arg;
	for (uint32_t i = 0; i < 300; i++) {
		CHECK(put_key(sp, i * 10, 0, i % 10 == 0 ? 5 : 1, A_DAY, SOON) == 0);
		put_numbers(sp, i * 10 + 8, 2);
	}
	uint64_t n_segments = stats_of(sp).n_segments;
	for (uint32_t i = 0; i < 3000; i++) {
		struct uuid id = model_id(i);
		spool_remove(sp, &id);
	}
	CHECK(spool_compact(sp, SOON) == 0);
	uint64_t live = stats_of(sp).n_bytes_live;
	while (stats_of(sp).n_bytes_disk > live + live / 4 + (256 << 10))
		CHECK(fiber_sleep(dur_ms(5), MONO_NEVER) == 0);
	CHECK(stats_of(sp).n_segments < n_segments && stats_of(sp).n_messages == 0);
	for (uint32_t i = 0; i < 300; i++)
		CHECK(model_key_look(sp, i * 10, SOON) == 0);
}

static void key_compact_check(void *arg)
{
	CHECK(stats_of(arg).n_keys == 300 && stats_of(arg).n_damaged == 0 && stats_of(arg).n_messages == 0);
	for (uint32_t i = 0; i < 300; i++)
		CHECK(model_key_look(arg, i * 10, SOON) == 0);
}

static void test_keys_are_carried_along(void **state)
{
	struct spool *sp = open_spool(128 << 10);
	worker_run(key_compact_main, sp);
	for (int i = 0; i < 3; i++) {
		spool_close(sp);
		sp = open_spool(128 << 10);
		worker_run(key_compact_check, sp);
	}
	spool_close(sp);
}

/* A put with a key that is cancelled, or too late, has either been done or never begun, and its caller knows
 * which. */
static struct key_cancel {
	struct spool *sp;
	uint32_t n_next, n_stored, n_refused;
} key_cancel;

static void put_key_until_cancelled(void *arg)
{
	for (;;) {
		uint32_t number = key_cancel.n_next++ * 10;
		bool is_stored = put_key(key_cancel.sp, number, 0, 1, A_DAY, MONO_NEVER) == 0;
		if (!is_stored)
			CHECK(err_is(ERR_CANCELLED));
		err_clear();
		struct uuid id = model_key_id(number);
		CHECK(spool_has_key(key_cancel.sp, &id) == is_stored);
		key_cancel.n_stored += is_stored;
		key_cancel.n_refused += !is_stored;
		if (!is_stored)
			return;
	}
}

static void key_cancel_main(void *arg)
{
	struct fiber_group g;
	fiber_group_init(&g);
	for (int i = 0; i < 50; i++) {
		for (int k = 0; k < 4; k++)
			fiber_start(&g, "put", put_key_until_cancelled, NULL);
		CHECK(fiber_sleep(dur_us(100 + i * 37), MONO_NEVER) == 0);
		fiber_group_cancel(&g);
		CHECK(fiber_group_join(&g, SOON) == 0);
	}
	CHECK(key_cancel.n_stored > 0 && key_cancel.n_refused == 200);
	CHECK(stats_of(arg).n_keys == key_cancel.n_stored && stats_of(arg).n_messages == key_cancel.n_stored);
	for (uint32_t i = 0; i < 100; i++) {
		bool is_stored =
			put_key(arg, 1000000 + i * 10, 0, 1, A_DAY, mono_after(dur_us(i % 10 * 20))) == 0;
		if (!is_stored)
			CHECK(err_is(ERR_TIMEOUT));
		err_clear();
		struct uuid id = model_key_id(1000000 + i * 10);
		CHECK(spool_has_key(arg, &id) == is_stored);
		key_cancel.n_stored += is_stored;
	}
	CHECK_FAILS(put_key(arg, 7, 0, 1, A_DAY, (mono_t){1}), ERR_TIMEOUT);
	put_numbers(arg, 8, 1);
	CHECK(stats_of(arg).n_keys == key_cancel.n_stored &&
	      stats_of(arg).n_messages == key_cancel.n_stored + 1);
}

static void test_keys_are_not_given_up(void **state)
{
	key_cancel = (struct key_cancel){.sp = open_spool(0)};
	worker_run(key_cancel_main, key_cancel.sp);
	spool_close(key_cancel.sp);
	struct spool *sp = open_spool(0);
	assert_int_equal(stats_of(sp).n_keys, key_cancel.n_stored);
	assert_int_equal(stats_of(sp).n_messages, key_cancel.n_stored + 1);
	spool_close(sp);
}

/* ---- many at once ---- */

static struct crowd {
	struct spool *sp;
	atomic_uint n_done, n_next;
	unsigned n_fibers, n_each;
} crowd;

static void crowd_fiber(void *arg)
{
	for (unsigned i = 0; i < crowd.n_each; i++) {
		uint32_t number = atomic_fetch_add(&crowd.n_next, 1) + 1;
		struct message *m = model_message(number, 0, NULL);
		CHECK(spool_put(crowd.sp, &m, 1, SOON) == 0);
		if (number % 2 == 0) {
			spool_remove(crowd.sp, &m->id);
		} else {
			model_dress(m, number, 1);
			spool_update(crowd.sp, m);
		}
		message_unref(m);
	}
	atomic_fetch_add(&crowd.n_done, 1);
}

static void crowd_wait(void *arg)
{
	while (atomic_load(&crowd.n_done) < crowd.n_fibers)
		CHECK(fiber_sleep(dur_ms(2), MONO_NEVER) == 0);
	put_numbers(crowd.sp, 1000000, 1); /* flushes the queue */
	CHECK(stats_of(crowd.sp).n_messages == crowd.n_fibers * crowd.n_each / 2 + 1);
}

static void test_crowd(void **state)
{
	crowd = (struct crowd){
		.sp = open_spool(1 << 20), .n_fibers = 64, .n_each = CHECK_IS_SANITIZED ? 32 : 128};
	for (unsigned i = 0; i < crowd.n_fibers; i++)
		worker_start_fiber(worker_get(i % N_WORKERS), "crowd", crowd_fiber, NULL);
	worker_run(crowd_wait, NULL);
	spool_close(crowd.sp);
	struct spool *sp = open_spool(1 << 20);
	assert_int_equal(stats_of(sp).n_messages, crowd.n_fibers * crowd.n_each / 2 + 1);
	assert_int_equal(stats_of(sp).n_damaged, 0);
	spool_close(sp);
}

/* ---- giving up ---- */

static void impatient(void *arg)
{
	struct spool *sp = arg;
	uint32_t n_given_up = 0;
	for (uint32_t i = 1; i <= 300; i++) {
		struct message *m = model_message(i, 0, NULL);
		int rc = spool_put(sp, &m, 1, mono_after(dur_us(i % 40 * 10)));
		CHECK(rc == 0 || err_is(ERR_TIMEOUT));
		n_given_up += rc != 0;
		if (rc != 0) { /* the same again, or out with it */
			if (i % 2 == 0)
				CHECK(spool_put(sp, &m, 1, SOON) == 0);
			else
				spool_remove(sp, &m->id);
		}
		if (rc != 0 && i % 2 == 1)
			n_given_up += 1 << 16;
		err_clear();
		message_unref(m);
	}
	CHECK(n_given_up > 0);
	put_numbers(sp, 1000, 1);
	CHECK(stats_of(sp).n_messages == 301 - (n_given_up >> 16));
}

static void put_cancelled(void *arg)
{
	struct message *m = model_message(5000, 0, NULL);
	while (spool_put(arg, &m, 1, MONO_NEVER) == 0)
		;
	CHECK(err_is(ERR_CANCELLED));
	err_clear();
	message_unref(m);
}

static void cancel_main(void *arg)
{
	struct fiber_group g;
	fiber_group_init(&g);
	for (int i = 0; i < 50; i++) {
		for (int k = 0; k < 4; k++)
			fiber_start(&g, "put", put_cancelled, arg);
		CHECK(fiber_sleep(dur_us(100 + i * 37), MONO_NEVER) == 0);
		fiber_group_cancel(&g);
		CHECK(fiber_group_join(&g, SOON) == 0);
	}
}

static void test_giving_up(void **state)
{
	struct spool *sp = open_spool(0);
	worker_run(impatient, sp);
	worker_run(cancel_main, sp);
	spool_close(sp);
}

/* ---- against a model ---- */

#define MODEL_N 700
static struct model {
	struct spool *sp;
	uint64_t seed;
	int32_t version[MODEL_N]; /* -1: not stored */
	uint32_t body[MODEL_N];
	int32_t key[MODEL_N]; /* version; -1: never stored */
	wall_t key_expires[MODEL_N];
} model;

static uint32_t model_roll(uint32_t n)
{
	model.seed = model_mix(model.seed + 0x9e37);
	return (uint32_t)(model.seed % n);
}

/* False when there is such a key: nothing has been stored. */
static bool model_put_with_key(struct spool *sp, uint32_t i, struct message **m, uint32_t n, bool is_short)
{
	struct buf answer = BUF_INIT;
	bool had_key = model.key[i] >= 0;
	wall_t before = wall_now(), expires = is_short ? wall_add(before, dur_ms(100)) : A_DAY;
	struct spool_key k = model_key(i, (uint16_t)(model.key[i] + 1), expires, &answer);
	int rc = spool_put_with_key(sp, m, n, &k, SOON);
	if (rc != 0) {
		CHECK(err_is(ERR_EXISTS) && had_key && before.ns < model.key_expires[i].ns);
		err_clear();
	} else {
		CHECK(!had_key || wall_now().ns >= model.key_expires[i].ns);
		model.key[i]++;
		model.key_expires[i] = expires;
	}
	buf_fini(&answer);
	return rc == 0;
}

static void model_step(struct spool *sp)
{
	uint32_t i = model_roll(MODEL_N), what = model_roll(100);
	struct uuid id = model_id(i);
	if (model.version[i] < 0) {
		struct message *m[8];
		uint32_t n = 0;
		struct body *shared = what < 20 ? model_body(i) : NULL;
		for (uint32_t k = i; k < MODEL_N && n < 1 + what % 8; k++) {
			if (model.version[k] >= 0)
				continue;
			m[n++] = model_message(k, (uint16_t)(what % 7), shared);
			model.version[k] = (int32_t)(what % 7);
			model.body[k] = shared != NULL ? i : k;
		}
		if (what % 3 != 0 || !model_put_with_key(sp, i, m, n, what % 2 == 0))
			CHECK(spool_put(sp, m, n, SOON) == 0);
		while (n > 0)
			message_unref(m[--n]);
		body_unref(shared);
	} else if (what < 45) {
		spool_remove(sp, &id);
		model.version[i] = -1;
	} else if (what < 75) {
		struct message *m = model_message(i, (uint16_t)(model.version[i] + 1), NULL);
		spool_update(sp, m);
		model.version[i]++;
		message_unref(m);
	} else if (what < 78) {
		struct message *m = model_message(i, (uint16_t)(model.version[i] + 1), NULL);
		CHECK(spool_put(sp, &m, 1, SOON) == 0);
		model.version[i]++;
		model.body[i] = i;
		message_unref(m);
	}
}

static void model_check_one(struct message *m, void *arg)
{
	uint32_t i = model_number(&m->id), *n = arg;
	CHECK(i < MODEL_N && m->n_attempts == model.version[i]);
	CHECK(model_differs(m, 0) == NULL);
	++*n;
	message_unref(m);
}

static void model_check(struct spool *sp)
{
	uint32_t n = 0;
	put_numbers(sp, MODEL_N + 1, 1);
	struct uuid id = model_id(MODEL_N + 1);
	spool_remove(sp, &id);
	put_numbers(sp, MODEL_N + 1, 1); /* everything before is written now, the removal too */
	spool_remove(sp, &id);
	for (uint32_t i = 0; i < MODEL_N; i++) {
		id = model_id(i);
		struct message *m = spool_load(sp, &id, SOON);
		CHECK((m != NULL) == (model.version[i] >= 0));
		err_clear();
		if (m == NULL)
			continue;
		n++;
		CHECK(m->n_attempts == model.version[i] && model_differs(m, model.body[i]) == NULL);
		message_unref(m);
	}
	uint32_t n_alive = 0;
	for (uint32_t i = 0; i < MODEL_N; i++) {
		wall_t before = wall_now();
		int version = model_key_look(sp, i, SOON);
		bool may_be_gone = model.key[i] < 0 || wall_now().ns >= model.key_expires[i].ns;
		CHECK(version == model.key[i] || (version == -1 && may_be_gone));
		CHECK(version == -1 || before.ns < model.key_expires[i].ns);
		n_alive += version >= 0;
	}
	CHECK(n_alive > 0 && stats_of(sp).n_keys >= n_alive);
	CHECK(stats_of(sp).n_damaged == 0);
}

static void model_main(void *arg)
{
	struct spool *sp = model.sp;
	uint32_t n = 0, want = 0;
	for (uint32_t i = 0; i < MODEL_N; i++)
		want += model.version[i] >= 0;
	CHECK(spool_enumerate(sp, model_check_one, &n, SOON) == 0);
	CHECK(n == want);
	for (int i = 0; i < (CHECK_IS_SANITIZED ? 600 : 1500); i++) {
		model_step(sp);
		if (model_roll(400) == 0)
			CHECK(spool_compact(sp, SOON) == 0);
	}
	model_check(sp);
	if (model_roll(2) == 0) {
		CHECK(spool_compact(sp, SOON) == 0);
		model_check(sp);
	}
}

static void test_model(void **state)
{
	model = (struct model){.seed = 42};
	for (uint32_t i = 0; i < MODEL_N; i++)
		model.version[i] = model.key[i] = -1;
	uint64_t disk = 0;
	for (int round = 0; round < 8; round++) {
		model.sp = open_spool(64 << 10);
		worker_run(model_main, NULL);
		struct spool_stats st = stats_of(model.sp);
		disk = st.n_bytes_disk;
		spool_close(model.sp);
	}
	assert_in_range(disk, 1,
			16 << 20); /* about 700 messages of 2.5 KB and as many keys, rewritten many times */
}

/* ---- space comes back ---- */

static void compact_main(void *arg)
{
	struct spool *sp = arg;
	for (uint32_t i = 1; i <= 400; i++) {
		struct message *m = model_message(i, 0, NULL);
		CHECK(spool_put(sp, &m, 1, SOON) == 0);
		message_unref(m);
	}
	struct spool_stats before = stats_of(sp);
	for (uint32_t i = 1; i <= 400; i++) {
		struct uuid id = model_id(i);
		if (i % 20 != 0)
			spool_remove(sp, &id);
	}
	CHECK(spool_compact(sp, SOON) == 0);
	while (stats_of(sp).n_bytes_disk > before.n_bytes_disk / 4) /* unlinked a few at a time */
		CHECK(fiber_sleep(dur_ms(5), MONO_NEVER) == 0);
	for (uint32_t i = 20; i <= 400; i += 20) {
		struct uuid id = model_id(i);
		struct message *m = spool_load(sp, &id, SOON);
		CHECK(m != NULL && model_differs(m, i) == NULL);
		message_unref(m);
		spool_remove(sp, &id);
	}
	CHECK(spool_compact(sp, SOON) == 0);
	while (stats_of(sp).n_segments > 2)
		CHECK(fiber_sleep(dur_ms(5), MONO_NEVER) == 0);
	CHECK(stats_of(sp).n_bytes_live == 0 && stats_of(sp).n_messages == 0);
}

/* More tombs than fit into a segment, all of them needed because the old segments stay: they must not be
 * written again and again. */
static void tombs_main(void *arg)
{
	struct spool *sp = arg;
	struct body *b = body_alloc(300);
	model_fill(b->p, b->n_bytes, 1);
	for (uint32_t i = 0; i < 6000; i += 100) {
		struct message *m[100];
		for (uint32_t k = 0; k < 100; k++)
			m[k] = model_message(i + k, 0, b);
		CHECK(spool_put(sp, m, 100, SOON) == 0);
		for (uint32_t k = 0; k < 100; k++)
			message_unref(m[k]);
	}
	uint64_t n_segments = stats_of(sp).n_segments;
	for (uint32_t i = 0; i < 6000; i++) {
		struct uuid id = model_id(i);
		if (i % 2 != 0)
			spool_remove(sp, &id);
	}
	put_numbers(sp, 10000, 60);			   /* seals the segments of tombs */
	CHECK(fiber_sleep(dur_ms(1500), MONO_NEVER) == 0); /* as long as it takes to go wrong */
	CHECK(stats_of(sp).n_segments <= n_segments + 12);
	CHECK(stats_of(sp).n_messages == 3060);
	for (uint32_t i = 0; i < 10060; i++) {
		struct uuid id = model_id(i);
		spool_remove(sp, &id);
	}
	CHECK(spool_compact(sp, SOON) == 0);
	while (stats_of(sp).n_segments > 2)
		CHECK(fiber_sleep(dur_ms(5), MONO_NEVER) == 0);
	CHECK(stats_of(sp).n_messages == 0);
	body_unref(b);
}

static void test_many_tombs(void **state)
{
	struct spool *sp = open_spool(64 << 10);
	worker_run(tombs_main, sp);
	spool_close(sp);
	sp = open_spool(64 << 10);
	assert_int_equal(stats_of(sp).n_messages, 0);
	spool_close(sp);
}

static void test_space_comes_back(void **state)
{
	struct spool *sp = open_spool(64 << 10);
	worker_run(compact_main, sp);
	spool_close(sp);
	sp = open_spool(64 << 10);
	assert_int_equal(stats_of(sp).n_messages, 0);
	spool_close(sp);
}

/* ---- what the world does ---- */

static void test_bad_places(void **state)
{
	struct spool_params p = {.name = STR("bad"), .path = STR("/proc/nothing/here")};
	assert_null(spool_open_journal(&p));
	assert_true(err_is(ERR_IO));
	assert_non_null(strstr(err_text(), "/proc/nothing/here: "));
	int fd = open(dir, O_CREAT | O_WRONLY, 0600);
	assert_true(fd >= 0);
	close(fd);
	p.path = str_of(dir);
	assert_null(spool_open_journal(&p));
	assert_true(err_is(ERR_IO) && strstr(err_text(), dir) != NULL);
	p.segment_bytes = 1;
	assert_null(spool_open_journal(&p));
	assert_true(err_is(ERR_INVALID));
	err_clear();
	unlink(dir);
	/* nothing in it is readable */
	assert_int_equal(mkdir(dir, 0700), 0);
	char path[128];
	snprintf(path, sizeof path, "%s/0000000000000001.journal", dir);
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	assert_int_equal(write(fd, "garbage", 7), 7);
	close(fd);
	p = (struct spool_params){.name = STR("bad"), .path = str_of(dir)};
	assert_null(spool_open_journal(&p));
	assert_true(err_is(ERR_CORRUPT));
	err_clear();
}

/* ---- saving what has changed ---- */

#define PAST ((mono_t){0}) /* a deadline that whoever has to write misses */

static void check_stored(struct spool *sp, const struct message *m, const char *body)
{
	struct message *got = spool_load(sp, &m->id, SOON);
	CHECK(got != NULL && strcmp(got->sender, m->sender) == 0 && got->size_bytes == m->size_bytes);
	CHECK(str_eq(str_mk(got->body->p, got->body->n_bytes), str_of(body)));
	message_unref(got);
}

static void save_main(void *arg)
{
	struct spool *sp = arg;
	str_t rcpt = STR("r@example.com");
	struct body *one = body_new(STR("one")), *two = body_new(STR("second")), *none = body_new(STR(""));
	struct message *m = message_new(STR("s@example.com"), &rcpt, 1, one);
	CHECK(spool_save(sp, m, SOON) == 0 && m->is_spooled);
	check_stored(sp, m, "one");
	CHECK(spool_save(sp, m, PAST) == 0); /* there is nothing to do */

	/* The record alone: what is in memory for a body does not matter. */
	message_set_sender(m, STR("t@example.com"));
	CHECK_FAILS(spool_save(sp, m, PAST), ERR_TIMEOUT);
	CHECK(m->is_changed);
	message_set_body(m, NULL);
	CHECK(spool_save(sp, m, SOON) == 0 && !m->is_changed);
	check_stored(sp, m, "one");
	message_set_body(m, one);
	message_set_sender(m, STR("u@example.com"));
	uint64_t live = stats_of(sp).n_bytes_live;
	CHECK(spool_save(sp, m, SOON) == 0);
	CHECK(stats_of(sp).n_bytes_live == live); /* the body was not written again */
	check_stored(sp, m, "one");

	/* Another body. */
	message_replace_body(m, two);
	CHECK_FAILS(spool_save(sp, m, PAST), ERR_TIMEOUT);
	CHECK(m->is_changed && m->is_body_changed);
	CHECK(spool_save(sp, m, SOON) == 0 && !m->is_changed && !m->is_body_changed);
	check_stored(sp, m, "second");
	CHECK(spool_save(sp, m, PAST) == 0);
	message_set_sender(m, STR("v@example.com"));
	spool_update(sp, m);
	CHECK(spool_save(sp, m, PAST) == 0);
	put_numbers(sp, 1, 1); /* in the queue behind it */
	check_stored(sp, m, "second");

	/* Nothing at all cannot be stored. */
	message_replace_body(m, none);
	CHECK_FAILS(spool_save(sp, m, SOON), ERR_INVALID);
	check_stored(sp, &(struct message){.id = m->id, .sender = m->sender, .size_bytes = 6}, "second");
	message_unref(m);
	m = message_new(STR(""), &rcpt, 1, one);
	CHECK_FAILS(spool_put_record(sp, m, SOON), ERR_NOT_FOUND);
	message_unref(m);
	body_unref(one);
	body_unref(two);
	body_unref(none);
}

static void test_save(void **state)
{
	struct spool *sp = open_spool(0);
	worker_run(save_main, sp);
	spool_close(sp);
}

#ifdef CIRRUS_FAULTS
/* A spool that does not flush does so for a message that asks for it. */
static void force_main(void *arg)
{
	struct spool *sp = arg;
	struct message *m = model_message(1, 0, NULL), *forced = model_message(2, 0, NULL);
	CHECK(fault_arm(STR("spool_commit=*")) == 0); /* passed by what is synced */
	CHECK(spool_put(sp, &m, 1, SOON) == 0);
	forced->is_force_synced = true;
	CHECK_FAILS(spool_put(sp, &forced, 1, SOON), ERR_IO);
	CHECK(fiber_sleep(dur_ms(20), MONO_NEVER) == 0);
	(void)stats_of(sp);
	CHECK(fault_arm(STR("")) == 0);
	CHECK(spool_put(sp, &forced, 1, SOON) == 0);
	message_touch(forced);
	CHECK(spool_save(sp, forced, SOON) == 0);
	message_unref(m);
	message_unref(forced);
}

static void test_forced_sync(void **state)
{
	struct spool *sp = spool_open_journal(
		&(struct spool_params){.name = STR("test"), .path = str_of(dir), .is_flushed = false});
	assert_non_null(sp);
	worker_run(force_main, sp);
	spool_close(sp);
}

/* Rules may change only while no point is passed: the writer has been idle for a while, and the lock it took
 * last, after its last point, orders what it read before what is written here. */
static void arm(struct spool *sp, const char *spec)
{
	CHECK(fiber_sleep(dur_ms(20), MONO_NEVER) == 0);
	(void)stats_of(sp);
	CHECK(fault_arm(str_of(spec)) == 0);
}

static void fault_main(void *arg)
{
	struct spool *sp = arg;
	static const char *const spec[] = {"spool_write=1",
					   "spool_sync=1",
					   "spool_commit=1",
					   "spool_alloc=1",
					   "spool_sync=1,spool_rotate=1",
					   "spool_write=2",
					   "spool_read=1"};
	uint32_t n = 0, next = 1;
	for (size_t i = 0; i < ARRAY_SIZE(spec); i++) {
		put_numbers(sp, next, 1); /* all is well, and this one is updated without a sync */
		struct message *m = model_message(next, 2, NULL);
		spool_update(sp, m);
		message_unref(m);
		arm(sp, spec[i]); /* the update is written by then, mostly */
		n++;
		bool has_failed = false;
		for (uint32_t k = 1; k <= 3; k++) {
			m = model_message(next + k, 0, NULL);
			int rc = spool_put(sp, &m, 1, SOON);
			CHECK(rc == 0 || err_is(ERR_IO) || err_is(ERR_SPOOL_FULL));
			CHECK(m->is_spooled == (rc == 0));
			has_failed = has_failed || rc != 0;
			n += rc == 0;
			err_clear();
			message_unref(m);
		}
		CHECK(has_failed || i >= 5);
		CHECK(stats_of(sp).n_messages == n);
		struct uuid id = model_id(next);
		m = spool_load(sp, &id, SOON);
		if (i == 6) {
			CHECK(m == NULL && err_is(ERR_IO));
			err_clear();
		} else {
			CHECK(m != NULL && m->n_attempts == 2 && model_differs(m, next) == NULL);
		}
		message_unref(m);
		arm(sp, "");
		while (spool_health(sp) != NULL)
			CHECK(fiber_sleep(dur_ms(20), MONO_NEVER) == 0);
		next += 4;
	}
}

static void fault_count(struct message *m, void *arg)
{
	uint32_t *n = arg;
	CHECK(model_differs(m, 0) == NULL);
	CHECK(m->n_attempts == (model_number(&m->id) % 4 == 1 ? 2 : 0));
	++*n;
	message_unref(m);
}

static struct spool *fault_spool;
static void fault_enumerate(void *arg)
{
	CHECK(spool_enumerate(fault_spool, fault_count, arg, SOON) == 0);
}

/* A put with a key fails as a whole. Keys that compaction
 * has copied, and whose sync failed, are still there. */
static void key_fault_main(void *arg)
{
	struct spool *sp = arg;
	static const char *const spec[] = {"spool_write=1", "spool_sync=1", "spool_commit=1",
					   "spool_alloc=1"};
	for (uint32_t i = 0; i < 40; i++)
		CHECK(put_key(sp, i * 10, 0, 1, A_DAY, SOON) == 0);
	for (uint32_t i = 0; i < ARRAY_SIZE(spec); i++) {
		uint32_t number = 1000 + i * 10;
		arm(sp, spec[i]);
		CHECK(put_key(sp, number, 0, 2, A_DAY, SOON) == -1 &&
		      (err_is(ERR_IO) || err_is(ERR_SPOOL_FULL)));
		err_clear();
		CHECK(model_key_look(sp, number, SOON) == -1);
		arm(sp, "");
		while (spool_health(sp) != NULL)
			CHECK(fiber_sleep(dur_ms(20), MONO_NEVER) == 0);
		if (i % 2 == 0) /* again: it counts once */
			CHECK(put_key(sp, number, 1, 2, A_DAY, SOON) == 0);
	}
	for (uint32_t i = 0; i < 40; i++) {
		struct uuid id = model_id(i * 10);
		spool_remove(sp, &id);
	}
	put_numbers(sp, 5000, 1);
	arm(sp, "spool_sync=2"); /* the first is that of the segment which is sealed for it */
	CHECK(spool_compact(sp, SOON) == 0);
	CHECK(spool_health(sp) != NULL);
	arm(sp, "");
	while (spool_health(sp) != NULL)
		CHECK(fiber_sleep(dur_ms(20), MONO_NEVER) == 0);
	/* Of a put that fails nothing is left, not even what was stored before. */
	static const char *const fails[] = {"spool_sync=1", "spool_write=1", ""};
	for (uint32_t i = 0; i < ARRAY_SIZE(fails); i++) {
		struct buf answer = BUF_INIT;
		struct spool_key k = model_key(2000 + i, 0, A_DAY, &answer);
		struct message *m[2] = {model_message(6000 + i, 0, NULL), model_message(6100 + i, 0, NULL)};
		CHECK(spool_put(sp, &m[1], 1, SOON) == 0);
		arm(sp, fails[i]);
		CHECK(spool_put_with_key(sp, m, 2, &k, i < 2 ? SOON : (mono_t){1}) ==
		      -1); /* the last one comes too late */
		err_clear();
		CHECK(!m[0]->is_spooled && !m[1]->is_spooled);
		arm(sp, "");
		while (spool_health(sp) != NULL)
			CHECK(fiber_sleep(dur_ms(20), MONO_NEVER) == 0);
		message_unref(m[0]);
		message_unref(m[1]);
		buf_fini(&answer);
	}
	while (stats_of(sp).n_messages > 5)
		CHECK(fiber_sleep(dur_ms(5), MONO_NEVER) == 0);
}

static void key_fault_check(void *arg)
{
	struct spool *sp = arg;
	for (uint32_t i = 0; i < 40; i++)
		CHECK(model_key_look(sp, i * 10, SOON) == 0);
	for (uint32_t i = 0; i < 4; i++)
		CHECK(model_key_look(sp, 1000 + i * 10, SOON) == (i % 2 == 0 ? 1 : -1));
	CHECK(stats_of(sp).n_keys == 42 && stats_of(sp).n_messages == 5 && stats_of(sp).n_damaged == 0);
}

static void test_key_faults(void **state)
{
	struct spool *sp = open_spool(0);
	worker_run(key_fault_main, sp);
	worker_run(key_fault_check, sp);
	spool_close(sp);
	sp = open_spool(0);
	worker_run(key_fault_check, sp);
	spool_close(sp);
}

static void test_faults(void **state)
{
	struct spool *sp = open_spool(0);
	worker_run(fault_main, sp);
	uint64_t n = stats_of(sp).n_messages;
	spool_close(sp);
	/* what failed does not come back */
	fault_spool = open_spool(0);
	uint32_t n_seen = 0;
	worker_run(fault_enumerate, &n_seen);
	assert_int_equal(n_seen, n);
	assert_int_equal(stats_of(fault_spool).n_damaged, 0);
	spool_close(fault_spool);
	/* opening fails, and leaves all as it was */
	assert_int_equal(fault_arm(STR("spool_open=1")), 0);
	assert_null(spool_open_journal(&(struct spool_params){.name = STR("test"), .path = str_of(dir)}));
	assert_true(err_is(ERR_IO));
	err_clear();
	assert_int_equal(fault_arm(STR("")), 0);
	sp = open_spool(0);
	assert_int_equal(stats_of(sp).n_messages, n);
	spool_close(sp);
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_basic, setup, teardown),
		cmocka_unit_test_setup_teardown(test_shared_bodies, setup, teardown),
		cmocka_unit_test_setup_teardown(test_keys, setup, teardown),
		cmocka_unit_test_setup_teardown(test_key_limits, setup, teardown),
		cmocka_unit_test_setup_teardown(test_key_expiry, setup, teardown),
		cmocka_unit_test_setup_teardown(test_keys_are_carried_along, setup, teardown),
		cmocka_unit_test_setup_teardown(test_keys_are_not_given_up, setup, teardown),
		cmocka_unit_test_setup_teardown(test_crowd, setup, teardown),
		cmocka_unit_test_setup_teardown(test_giving_up, setup, teardown),
		cmocka_unit_test_setup_teardown(test_model, setup, teardown),
		cmocka_unit_test_setup_teardown(test_space_comes_back, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many_tombs, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_places, setup, teardown),
		cmocka_unit_test_setup_teardown(test_save, setup, teardown),
#ifdef CIRRUS_FAULTS
		cmocka_unit_test_setup_teardown(test_forced_sync, setup, teardown),
		cmocka_unit_test_setup_teardown(test_faults, setup, teardown),
		cmocka_unit_test_setup_teardown(test_key_faults, setup, teardown),
#endif
	};
	cmocka_set_test_filter(getenv("ONLY"));
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
