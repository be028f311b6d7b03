/* test_scheduling.c - schedules in the queues, under a clock that the test moves: nothing is tried before its
 * time or outside its hours, over restarts too, and what would come too late ends. */
#include "fiber_check.h"
#include "queue_service.h"

#include "mail/schedule.h"
#include "queue/queue_impl.h"
#include "queue/reception.h"

#include <stdatomic.h>

#define LIST "protocol = { smtp = { mx_list = { '127.0.0.1:9' } } }, "

/* --- the clock --- */

static wall_t at(const char *rfc3339)
{
	wall_t t;
	CHECK(wall_parse_rfc3339(str_of(rfc3339), &t));
	return t;
}

#define STEP dur_s(300)

static void set_clock(const char *rfc3339)
{
	clock_set_virtual(mono_now(), at(rfc3339));
	worker_clock_changed();
}

/* --- a deliverer that notes when what was tried, and answers as it is told --- */

static struct {
	pthread_mutex_t lock;
	unsigned n_tries;
	struct
	try {
		char rcpt[64];
		wall_t at;
	}
	tries[64];
	_Atomic bool is_failing;
	const char *path;	 /* of make_egress_path */
	_Atomic bool is_holding; /* a try takes until it is false */
} t = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void deliver_and_note(struct session *s)
{
	static const struct smtp_response ok = {.code = 250, .content = {"fine", 4}},
					  later = {.code = 450, .content = {"later", 5}};
	for (struct message *m; (m = session_next(s, DUR_ZERO)) != NULL;) {
		pthread_mutex_lock(&t.lock);
		CHECK(t.n_tries < ARRAY_SIZE(t.tries));
		struct try *v = &t.tries[t.n_tries++];
		snprintf(v->rcpt, sizeof(v->rcpt), "%s", m->rcpt[0]);
		v->at = wall_now();
		pthread_mutex_unlock(&t.lock);
		while (atomic_load(&t.is_holding))
			fiber_yield();
		session_done_all(s, m, atomic_load(&t.is_failing) ? &later : &ok, NULL);
	}
}
static const struct deliverer test_deliverer = {
	.protocol = "smtp_client", .record_name = "ESMTP", .run = deliver_and_note};

static unsigned count_tries(void)
{
	pthread_mutex_lock(&t.lock);
	unsigned n = t.n_tries;
	pthread_mutex_unlock(&t.lock);
	return n;
}

static void do_nothing(void *arg) {}

/** Everybody has seen what the clock shows, and all that is left sleeps in the wheel. */
static unsigned wait_until_quiet(void)
{
	struct spool_stats st;
	worker_run(do_nothing, NULL); /* behind the timer's turn */
	for (int i = 0;; i++) {
		spool_get_stats(service.spool, &st);
		if (timer_count() == st.n_messages && atomic_load(&queue_g.n_sessions) == 0)
			return (unsigned)st.n_messages;
		CHECK(i < 30000);
		usleep(1000);
	}
}

/** The n-th try was at that time, or within the step of the clock after it. */
static void check_try(unsigned n, const char *rfc3339)
{
	wait_until_quiet();
	CHECK(count_tries() >= n);
	int64_t late = wall_sub(t.tries[n - 1].at, at(rfc3339)).ns;
	if (late < 0 || late > STEP.ns) {
		struct buf b = BUF_INIT;
		wall_fmt_rfc3339(t.tries[n - 1].at, 3, &b);
		fprintf(stderr, "try %u of %s was at %s\n", n, t.tries[n - 1].rcpt, b.p);
		abort();
	}
}

/** In steps, as time goes, so that nobody sleeps over what comes first. */
static void advance_to(const char *rfc3339)
{
	dur_t left;
	while ((left = wall_sub(at(rfc3339), wall_now())).ns > 0) {
		clock_advance(left.ns > STEP.ns ? STEP : left);
		worker_clock_changed();
		wait_until_quiet();
	}
}

static void check_waiting(unsigned n_waiting, unsigned n_tries)
{
	unsigned n = wait_until_quiet();
	if (n == n_waiting && count_tries() == n_tries)
		return;
	fprintf(stderr, "%u wait, after %u tries; expected were %u and %u\n", n, count_tries(), n_waiting,
		n_tries);
	abort();
}

/* --- before and after --- */

static int setup(void **state)
{
	service_make_dir();
	service.deliverer = &test_deliverer;
	t.n_tries = 0;
	t.path = "";
	t.is_failing = false;
	t.is_holding = false;
	return 0;
}

static int teardown(void **state)
{
	clock_set_real();
	service_remove_dir();
	return 0;
}

static void begin(const char *queue, bool is_recovering)
{
	service_write_policy(queue, "", t.path, "");
	service_begin(is_recovering);
}

/** Stopping waits on the clock, which then stands for nobody. */
static void end(void)
{
	clock_set_real();
	worker_clock_changed();
	service_end(dur_s(10));
}

/* --- messages --- */

struct order {
	const char *rcpt, *first_attempt, *expires; /* NULL: none */
	const char *dow, *tz, *start, *end;
	const char *due;
	struct uuid id; /* out */
};

static void receive(void *arg)
{
	struct order *o = arg;
	struct reception r;
	str_t rcpt = str_of(o->rcpt);
	struct body *b = body_new(STR("Subject: x\r\n\r\nhello\r\n"));
	struct message *m = message_new(STR("s@example.com"), &rcpt, 1, b);
	body_unref(b);
	struct schedule *s = xnew(struct schedule);
	if (o->first_attempt != NULL)
		CHECK(schedule_parse_time(str_of(o->first_attempt), &s->first_attempt) == 0);
	if (o->expires != NULL)
		CHECK(schedule_parse_time(str_of(o->expires), &s->expires) == 0);
	if (o->dow != NULL)
		CHECK(schedule_parse_dow(str_of(o->dow), &s->dow) == 0 &&
		      schedule_set_zone(s, str_of(o->tz)) == 0 &&
		      schedule_parse_clock(str_of(o->start), &s->start) == 0 &&
		      schedule_parse_clock(str_of(o->end), &s->end) == 0);
	CHECK(schedule_check(s) == 0);
	if (schedule_is_empty(s))
		schedule_free(s);
	else
		message_set_schedule(m, s);
	if (o->due != NULL)
		m->due = at(o->due);
	o->id = m->id;
	reception_init(&r, 1);
	CHECK(reception_add(&r, m, MONO_NEVER) == 0 && reception_store(&r, MONO_NEVER) == 0);
	reception_enqueue(&r, &(struct record){.peer_name = STR_NULL});
	reception_fini(&r);
}

static void inject(struct order *o)
{
	worker_run(receive, o);
}

/* --- tests --- */

static void test_first_attempt(void **state)
{
	set_clock("2026-11-23T10:00:00Z");
	begin(LIST, false);
	inject(&(struct order){.rcpt = "now@example.org", .first_attempt = "2026-11-23T09:00:00Z"});
	check_try(1, "2026-11-23T10:00:00Z");
	inject(&(struct order){.rcpt = "later@example.org", .first_attempt = "2026-11-23T14:00:00+01:00"});
	inject(&(struct order){.rcpt = "due@example.org", .due = "2026-11-23T12:00:00Z"});
	check_waiting(2, 1);
	advance_to("2026-11-23T11:59:00Z");
	check_waiting(2, 1);
	advance_to("2026-11-23T12:10:00Z");
	check_try(2, "2026-11-23T12:00:00Z");
	CHECK(strcmp(t.tries[1].rcpt, "due@example.org") == 0);
	advance_to("2026-11-23T12:59:59Z");
	check_waiting(1, 2);
	advance_to("2026-11-23T13:05:00Z");
	check_try(3, "2026-11-23T13:00:00Z");
	check_waiting(0, 3);
	end();
}

/* It sleeps over restarts, even one that finds its time passed. */
static void test_restarts(void **state)
{
	struct order o = {.rcpt = "later@example.org", .first_attempt = "2026-11-25T12:00:00Z"}, p = o;
	p.rcpt = "latest@example.org", p.first_attempt = "2026-12-25T12:00:00Z";
	set_clock("2026-11-23T10:00:00Z");
	begin(LIST, false);
	inject(&o);
	inject(&p);
	check_waiting(2, 0);
	end();

	set_clock("2026-11-24T10:00:00Z");
	begin(LIST, true);
	check_waiting(2, 0);
	advance_to("2026-11-25T11:50:00Z");
	check_waiting(2, 0);
	end();

	set_clock("2026-11-26T00:00:00Z");
	begin(LIST, true);
	check_try(1, "2026-11-26T00:00:00Z");
	check_waiting(1, 1);
	end();
	assert_string_equal(t.tries[0].rcpt, "later@example.org");
}

static void test_window(void **state)
{
	/* A Monday, 07:00 in Phoenix. */
	set_clock("2026-11-23T14:00:00Z");
	begin(LIST "retry_interval = '10m'", false);
	struct order o = {.rcpt = "r@example.org",
			  .dow = "Mon,Wed",
			  .tz = "America/Phoenix",
			  .start = "09:00:00",
			  .end = "17:00:00"};
	atomic_store(&t.is_failing, true);
	inject(&o);
	check_waiting(1, 0);
	advance_to("2026-11-23T15:50:00Z");
	check_waiting(1, 0);
	advance_to("2026-11-23T16:01:00Z");
	check_try(1, "2026-11-23T16:00:00Z");
	/* Retries go on by the ordinary rule within the window, after 10, 20, 40 ... minutes, */
	advance_to("2026-11-23T23:50:00Z");
	unsigned n = count_tries();
	CHECK(n >= 4 && n <= 6);
	/* and the one that would come after its end comes on Wednesday. */
	advance_to("2026-11-25T15:59:00Z");
	check_waiting(1, n);
	struct service_message l = service_look_at(o.id);
	CHECK(l.n_attempts == n && l.due.ns == at("2026-11-25T16:00:00Z").ns);
	atomic_store(&t.is_failing, false);
	advance_to("2026-11-25T16:01:00Z");
	check_try(n + 1, "2026-11-25T16:00:00Z");
	check_waiting(0, n + 1);
	end();
}

/* What was due while nobody ran keeps to its hours all the same. */
static void test_window_after_a_restart(void **state)
{
	struct order o = {
		.rcpt = "r@example.org", .dow = "Mon", .tz = "UTC", .start = "09:00:00", .end = "17:00:00"};
	set_clock("2026-11-23T08:00:00Z");
	begin(LIST, false);
	inject(&o);
	check_waiting(1, 0);
	end();
	set_clock("2026-11-23T18:00:00Z");
	begin(LIST, true);
	check_waiting(1, 0);
	advance_to("2026-11-30T08:50:00Z");
	check_waiting(1, 0);
	advance_to("2026-11-30T09:01:00Z");
	check_try(1, "2026-11-30T09:00:00Z");
	check_waiting(0, 1);
	end();
}

static void test_expires(void **state)
{
	set_clock("2026-11-23T10:00:00Z");
	begin(LIST "retry_interval = '10m', max_age = '1h'", false);
	/* At once: its first attempt would come too late. */
	inject(&(struct order){.rcpt = "a@example.org", .expires = "2026-11-23T10:00:00Z"});
	check_waiting(0, 0);
	inject(&(struct order){.rcpt = "b@example.org",
			       .first_attempt = "2026-11-24T00:00:00Z",
			       .expires = "2026-11-23T23:00:00Z"});
	check_waiting(0, 0);
	inject(&(struct order){.rcpt = "c@example.org",
			       .dow = "Tue",
			       .tz = "UTC",
			       .start = "09:00:00",
			       .end = "10:00:00",
			       .expires = "2026-11-24T09:00:00Z"});
	check_waiting(0, 0);
	/* In time, once. */
	atomic_store(&t.is_failing, true);
	inject(&(struct order){.rcpt = "d@example.org", .expires = "2026-11-23T10:05:00Z"});
	check_try(1, "2026-11-23T10:00:00Z");
	check_waiting(0, 1); /* the next attempt would be after it */
	/* It takes the place of max_age, both ways. */
	inject(&(struct order){.rcpt = "e@example.org", .expires = "2026-11-25T10:00:00Z"});
	check_try(2, "2026-11-23T10:00:00Z");
	advance_to("2026-11-23T15:00:00Z");
	check_waiting(1, count_tries());
	CHECK(count_tries() >= 5);
	advance_to("2026-11-25T10:10:00Z");
	check_waiting(0, count_tries());
	unsigned n = count_tries();
	/* Without it, max_age holds. */
	inject(&(struct order){.rcpt = "f@example.org"});
	advance_to("2026-11-25T12:00:00Z");
	check_waiting(0, count_tries());
	CHECK(count_tries() == n + 3); /* after 0, 10 and 30 minutes; the next would be after 70 */
	end();
}

/* A first attempt after max_age is tried once; and what has expired while nobody ran ends with the start. */
static void test_expires_over_a_restart(void **state)
{
	set_clock("2026-11-23T10:00:00Z");
	begin(LIST "max_age = '1h'", false);
	inject(&(struct order){.rcpt = "a@example.org", .first_attempt = "2026-11-24T10:00:00Z"});
	inject(&(struct order){.rcpt = "b@example.org",
			       .first_attempt = "2026-11-24T10:00:00Z",
			       .expires = "2026-11-24T11:00:00Z"});
	check_waiting(2, 0);
	end();
	set_clock("2026-11-24T12:00:00Z");
	begin(LIST "max_age = '1h'", true);
	check_try(1, "2026-11-24T12:00:00Z");
	check_waiting(0, 1);
	end();
	assert_string_equal(t.tries[0].rcpt, "a@example.org");
}

/* A slow site: the first message is in hand from noon to 17:30, and the others wait for their turn meanwhile.
 */
static void test_hours_end_before_the_turn_comes(void **state)
{
	t.path = "connection_limit = 1, max_ready = 2";
	set_clock("2026-11-23T12:00:00Z");
	begin(LIST "max_age = '2h'", false);
	atomic_store(&t.is_holding, true);
	inject(&(struct order){.rcpt = "slow@example.org"});
	while (count_tries() == 0)
		usleep(1000);
	struct order window = {.rcpt = "window@example.org",
			       .dow = "Mon,Tue",
			       .tz = "UTC",
			       .start = "09:00:00",
			       .end = "17:00:00"};
	inject(&(struct order){.rcpt = "open@example.org",
			       .dow = "Mon",
			       .tz = "UTC",
			       .start = "09:00:00",
			       .end = "19:00:00",
			       .expires = "2026-11-24T00:00:00Z"});
	inject(&(struct order){.rcpt = "expires@example.org", .expires = "2026-11-23T17:00:00Z"});
	window.expires = "2026-11-25T00:00:00Z";
	inject(&window);
	inject(&(struct order){.rcpt = "old@example.org"});
	inject(&(struct order){
		.rcpt = "due@example.org", .due = "2026-11-23T17:30:00Z", .expires = "2026-11-24T00:00:00Z"});
	clock_advance(dur_s(5 * 3600 + 1800));
	inject(&(struct order){.rcpt = "fresh@example.org"});
	atomic_store(&t.is_holding, false);
	worker_clock_changed();
	check_waiting(1, 4); /* slow, open, fresh, due; one has expired, one is too old by now */
	for (unsigned i = 0; i < 4; i++)
		CHECK(strcmp(t.tries[i].rcpt, "expires@example.org") != 0 &&
		      strcmp(t.tries[i].rcpt, "old@example.org") != 0 &&
		      strcmp(t.tries[i].rcpt, "window@example.org") != 0);
	struct service_message l = service_look_at(window.id);
	CHECK(l.n_attempts == 0 && l.due.ns == at("2026-11-24T09:00:00Z").ns);
	advance_to("2026-11-24T08:50:00Z");
	check_waiting(1, 4);
	advance_to("2026-11-24T09:01:00Z");
	check_try(5, "2026-11-24T09:00:00Z");
	check_waiting(0, 5);
	end();
}

int main(void)
{
	service_register();
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_first_attempt),
		T(test_restarts),
		T(test_window),
		T(test_window_after_a_restart),
		T(test_expires),
		T(test_expires_over_a_restart),
		T(test_hours_end_before_the_turn_comes),
	};
	cmocka_set_test_filter(getenv("ONLY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
