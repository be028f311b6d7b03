/* test_queue.c - the queues with a real spool, a real policy and a deliverer that does as a test tells it:
 * every message ends exactly once, in order, whatever the sessions do; nobody waits for ever; what a stop
 * interrupts is not charged and comes back after a restart. */
#include "fiber_check.h"
#include "queue_service.h"

#include "base/uuid.h"

#include <pthread.h>
#include <signal.h>

#define N_WORKERS 2
#define MAX_MESSAGES 20000
#define LIST "protocol = { smtp = { mx_list = { '127.0.0.1:9' } } }, "

static const struct smtp_response ok = {.code = 250, .content = {"fine", 4}};
static const struct smtp_response later = {.code = 450, .content = {"later", 5}};
static const struct smtp_response never = {.code = 550, .content = {"never", 5}};
static const struct smtp_response limbo = {.code = 451, .content = {"all later", 9}};

/* --- the deliverer --- */

static struct {
	bool (*on_message)(struct session *s, struct message *m); /* consumes m; false ends the session */
	void (*on_goodbye)(struct session *s);
	dur_t idle;
	_Atomic bool is_open; /* the gate that gated sessions wait at */
	_Atomic uint32_t n_sessions, n_active, n_at_gate, n_goodbyes;
	pthread_mutex_t lock;
	uint32_t n_taken;
	uint32_t taken[MAX_MESSAGES * 4]; /* numbers, in order */
	uint32_t n_ends[MAX_MESSAGES];	  /* final answers that were given */
	uint32_t n_tries[MAX_MESSAGES];
} t = {.lock = PTHREAD_MUTEX_INITIALIZER};

static uint32_t number_of(const struct message *m)
{
	return (uint32_t)strtoul(m->rcpt[0], NULL, 10);
}

static void note_taken(const struct message *m)
{
	uint32_t n = number_of(m);
	CHECK(n < MAX_MESSAGES && m->body != NULL);
	pthread_mutex_lock(&t.lock);
	CHECK(t.n_taken < ARRAY_SIZE(t.taken));
	t.taken[t.n_taken++] = n;
	t.n_tries[n]++;
	pthread_mutex_unlock(&t.lock);
}

static void note_end(uint32_t number)
{
	pthread_mutex_lock(&t.lock);
	t.n_ends[number]++;
	pthread_mutex_unlock(&t.lock);
}

static uint32_t count_ends(void)
{
	uint32_t n = 0;
	pthread_mutex_lock(&t.lock);
	for (size_t i = 0; i < MAX_MESSAGES; i++)
		n += t.n_ends[i];
	pthread_mutex_unlock(&t.lock);
	return n;
}

static void test_run(struct session *s)
{
	atomic_fetch_add(&t.n_sessions, 1);
	atomic_fetch_add(&t.n_active, 1);
	struct message *m = session_next(s, DUR_ZERO);
	while (m != NULL) {
		note_taken(m);
		if (!t.on_message(s, m))
			break;
		m = session_next(s, t.idle);
	}
	if (t.on_goodbye != NULL) {
		atomic_fetch_add(&t.n_goodbyes, 1);
		t.on_goodbye(s);
	}
	atomic_fetch_sub(&t.n_active, 1);
}

static const struct deliverer test_deliverer = {
	.protocol = "smtp_client", .record_name = "ESMTP", .run = test_run};

/** Until the gate is open. -1: cancelled. */
static int wait_at_gate(void)
{
	int rc = 0;
	atomic_fetch_add(&t.n_at_gate, 1);
	while (rc == 0 && !atomic_load(&t.is_open))
		rc = fiber_sleep(dur_ms(2), MONO_NEVER);
	atomic_fetch_sub(&t.n_at_gate, 1);
	if (rc != 0)
		err_clear();
	return rc;
}

static bool deliver(struct session *s, struct message *m)
{
	note_end(number_of(m));
	session_done_all(s, m, &ok, NULL);
	return true;
}

static bool deliver_at_gate(struct session *s, struct message *m)
{
	if (wait_at_gate() == 0)
		return deliver(s, m);
	session_return(s, m);
	return false;
}

/* --- before and after each test --- */

static int setup(void **state)
{
	service_make_dir();
	memset(t.n_ends, 0, sizeof(t.n_ends));
	memset(t.n_tries, 0, sizeof(t.n_tries));
	t.n_taken = t.n_sessions = t.n_goodbyes = 0;
	t.is_open = false;
	t.on_message = deliver;
	t.on_goodbye = NULL;
	t.idle = dur_s(20);
	service.deliverer = &test_deliverer;
	service.body_budget_bytes = 0;
	service_write_policy(LIST "retry_interval = '300ms'", "", "", "");
	return 0;
}

static int teardown(void **state)
{
	service_remove_dir();
	return 0;
}

static void end_service(dur_t patience)
{
	service_end(patience);
	CHECK(atomic_load(&t.n_active) == 0);
}

/* --- waiting --- */

static bool wait_for(bool (*is_so)(void), const char *what)
{
	mono_t end = mono_after(dur_s(60));
	while (!is_so()) {
		if (mono_is_past(end)) {
			fprintf(stderr, "waited in vain for %s; %u ends, %u taken, %u sessions\n", what,
				count_ends(), t.n_taken, t.n_active);
			abort();
		}
		usleep(2000);
	}
	return true;
}
#define WAIT_FOR(is_so) wait_for(is_so, #is_so)

static uint32_t expected;
static bool all_ended(void)
{
	return count_ends() >= expected;
}
static bool spool_is_empty(void)
{
	struct spool_stats st;
	spool_get_stats(service.spool, &st);
	return st.n_messages == 0;
}
static bool queues_are_empty(void)
{
	struct queue_totals q;
	queue_get_totals(&q);
	return q.n_scheduled == 0 && q.n_ready == 0;
}

/** Each of them once, and nothing left behind. */
static void check_all_ended_once(uint32_t n)
{
	expected = n;
	WAIT_FOR(all_ended);
	WAIT_FOR(spool_is_empty);
	WAIT_FOR(queues_are_empty);
	for (uint32_t i = 0; i < n; i++)
		CHECK(t.n_ends[i] == 1);
	CHECK(count_ends() == n);
}

/* --- messages in --- */

struct batch {
	const char *domain;
	uint32_t first, n, n_rcpt;
	wall_t due;
	struct uuid *ids; /* NULL: not wanted */
};

static struct message *make_message(const struct batch *b, uint32_t number)
{
	char rcpt[8][64], body[64];
	str_t list[8];
	uint32_t n = b->n_rcpt > 0 ? b->n_rcpt : 1;
	CHECK(n <= 8);
	for (uint32_t i = 0; i < n; i++) {
		snprintf(rcpt[i], sizeof(rcpt[i]), "%u%c@%s", number, 'a' + (char)i, b->domain);
		list[i] = str_of(rcpt[i]);
	}
	snprintf(body, sizeof(body), "Subject: %u\r\n\r\nbody of %u\r\n", number, number);
	struct body *bytes = body_new(str_of(body));
	struct message *m = message_new(STR("s@example.com"), list, n, bytes);
	body_unref(bytes);
	m->due = b->due;
	return m;
}

static void insert_batch(void *arg)
{
	const struct batch *b = arg;
	struct message **m = xcalloc(b->n, sizeof(*m));
	for (uint32_t i = 0; i < b->n; i++) {
		m[i] = make_message(b, b->first + i);
		if (b->ids != NULL)
			b->ids[i] = m[i]->id;
	}
	CHECK(spool_put(service.spool, m, b->n, MONO_NEVER) == 0);
	struct sched_queue *q = sched_queue_get(str_of(b->domain), MONO_NEVER);
	CHECK(q != NULL);
	for (uint32_t i = 0; i < b->n; i++)
		sched_queue_insert(q, m[i]);
	sched_queue_unref(q);
	free(m);
}

static void insert(const char *domain, uint32_t first, uint32_t n)
{
	struct batch b = {.domain = domain, .first = first, .n = n};
	worker_run(insert_batch, &b);
}

/* --- the ordinary way --- */

static void test_order(void **state)
{
	enum { N = 2000 };
	service_write_policy(LIST, "", "connection_limit = 1, max_ready = 7", "");
	service_begin(false);
	for (uint32_t i = 0; i < N; i += 100)
		insert("a.example.org", i, 100);
	check_all_ended_once(N);
	for (uint32_t i = 0; i < N; i++)
		CHECK(t.taken[i] == i);
	end_service(dur_s(10));
}

static void test_max_ready_of_one(void **state)
{
	service_write_policy(LIST, "", "max_ready = 1", "");
	service_begin(false);
	insert("a.example.org", 0, 500);
	insert("b.example.org", 500, 500);
	check_all_ended_once(1000);
	end_service(dur_s(10));
}

/* Whether a session waits for a message, which it does a moment after the end of the one before. */
static _Atomic uint32_t n_waiting, n_looked;
static void look_at_fiber(const struct fiber_info *fi, void *arg)
{
	if (strcmp(fi->name, "session") == 0 && strcmp(fi->waits_for, "an event") == 0)
		atomic_fetch_add(&n_waiting, 1);
}
static void look_at_worker(void *arg)
{
	fiber_each(look_at_fiber, NULL);
	atomic_fetch_add(&n_looked, 1);
}
static bool a_session_waits(void)
{
	atomic_store(&n_waiting, 0);
	atomic_store(&n_looked, 0);
	for (unsigned i = 0; i < workers_count(); i++)
		worker_post(worker_get(i), look_at_worker, NULL);
	while (atomic_load(&n_looked) < workers_count())
		usleep(100);
	return atomic_load(&n_waiting) > 0;
}

/** A session that waits gets the next message itself. */
static void test_hand_over(void **state)
{
	service_begin(false);
	for (uint32_t i = 0; i < 100; i++) {
		insert("a.example.org", i, 1);
		expected = i + 1;
		WAIT_FOR(all_ended);
		WAIT_FOR(a_session_waits);
	}
	check_all_ended_once(100);
	CHECK(t.n_sessions == 1);
	end_service(dur_s(10));
}

/** The number of sessions follows the load up to the limit. */
static uint32_t gate_size;
static bool gate_is_full(void)
{
	return t.n_at_gate == gate_size;
}
static void test_limit(void **state)
{
	t.on_message = deliver_at_gate;
	service_write_policy(LIST, "", "connection_limit = 5", "");
	service_begin(false);
	insert("a.example.org", 0, 1000);
	gate_size = 5;
	WAIT_FOR(gate_is_full);
	usleep(50000);
	CHECK(t.n_active == 5 && t.n_sessions == 5);
	t.is_open = true;
	check_all_ended_once(1000);
	end_service(dur_s(10));
}

/* --- waiting for room --- */

static _Atomic uint32_t flood_next, n_owed;
static _Atomic bool is_flooding;

/** Every message of the flood is followed by another as soon as there is room for it, so that their ready
 * queue never drains. */
static bool deliver_and_refill(struct session *s, struct message *m)
{
	if (strstr(m->rcpt[0], "flood") == NULL)
		return deliver_at_gate(s, m);
	for (uint32_t n_owing = atomic_exchange(&n_owed, 0); n_owing > 0 && atomic_load(&is_flooding);
	     n_owing--) {
		uint32_t n = atomic_fetch_add(&flood_next, 1);
		CHECK(n < MAX_MESSAGES); /* the others would not have come through */
		struct batch b = {.domain = "flood.example.org", .first = n, .n = 1};
		insert_batch(&b);
	}
	atomic_fetch_add(&n_owed, 1);
	return deliver_at_gate(s, m);
}

static bool others_ended(void)
{
	uint32_t n = 0;
	pthread_mutex_lock(&t.lock);
	for (uint32_t i = 0; i < 60; i++)
		n += t.n_ends[i];
	pthread_mutex_unlock(&t.lock);
	return n == 60;
}

static void test_a_flood_does_not_starve_others(void **state)
{
	t.on_message = deliver_and_refill;
	service_write_policy(LIST, "", "connection_limit = 1, max_ready = 8", "");
	service_begin(false);
	is_flooding = true;
	n_owed = 0;
	flood_next = 60 + 8;
	insert("flood.example.org", 60, 8); /* one in hand, seven ready: all of the same site */
	gate_size = 1;
	WAIT_FOR(gate_is_full);
	insert("b.example.org", 0, 1);	/* the eighth */
	insert("a.example.org", 1, 59); /* no room */
	t.is_open = true;
	WAIT_FOR(others_ended);
	is_flooding = false;
	usleep(20000); /* a refill may be on its way */
	check_all_ended_once(flood_next);
	end_service(dur_s(10));
}

static const char two_sources[] = "kumo.on('get_egress_pool', function(name)\n"
				  "  return kumo.make_egress_pool { name = name, entries = { { name = 'one' "
				  "}, { name = 'bad' }, { name = 'two' } } } end)\n"
				  "kumo.on('get_egress_source', function(name)\n"
				  "  if name == 'bad' then error('no such source') end\n"
				  "  return kumo.make_egress_source { name = name } end)\n";

static bool stall_source_one(struct session *s, struct message *m)
{
	return strcmp(session_source(s)->name, "one") == 0 ? deliver_at_gate(s, m) : deliver(s, m);
}

static bool most_ended(void)
{
	return count_ends() >= 100 - 1 - 3;
}

/** One of two sources stalls, and one cannot be made: what does not fit into the first goes out by the
 * second. */
static void test_two_sources(void **state)
{
	t.on_message = stall_source_one;
	service_write_policy(LIST "egress_pool = 'p'", "", "connection_limit = 1, max_ready = 3",
			     two_sources);
	service_begin(false);
	insert("a.example.org", 0, 100);
	WAIT_FOR(most_ended);
	gate_size = 1;
	WAIT_FOR(gate_is_full);
	CHECK(count_ends() <= 99);
	t.is_open = true;
	check_all_ended_once(100);
	end_service(dur_s(10));
}

/* --- what sessions may do --- */

static bool return_at_first(struct session *s, struct message *m)
{
	CHECK(m->n_attempts == 0);
	pthread_mutex_lock(&t.lock);
	bool is_first = t.n_tries[number_of(m)] == 1;
	pthread_mutex_unlock(&t.lock);
	if (!is_first)
		return deliver(s, m);
	session_return(s, m);
	return false;
}

static void test_return(void **state)
{
	t.on_message = return_at_first;
	service_write_policy(LIST, "", "connection_limit = 4, max_ready = 10", "");
	service_begin(false);
	insert("a.example.org", 0, 300);
	check_all_ended_once(300);
	CHECK(t.n_taken == 600);
	end_service(dur_s(10));
}

static bool fail_queue_at_first(struct session *s, struct message *m)
{
	if (m->n_attempts > 0) {
		CHECK(m->n_attempts == 1);
		return deliver(s, m);
	}
	session_fail_queue(s, m, &limbo);
	return false;
}

static void test_fail_queue(void **state)
{
	t.on_message = fail_queue_at_first;
	service_write_policy(LIST "retry_interval = '300ms'", "", "connection_limit = 1, max_ready = 100",
			     "");
	service_begin(false);
	insert("a.example.org", 0, 250);
	check_all_ended_once(250);
	CHECK(t.n_taken < 500); /* most failed without being taken */
	end_service(dur_s(10));
}

static bool bounce_queue(struct session *s, struct message *m)
{
	session_fail_queue(s, m, &never);
	return false;
}

static void test_bounce_queue(void **state)
{
	t.on_message = bounce_queue;
	service_begin(false);
	insert("a.example.org", 0, 250);
	WAIT_FOR(spool_is_empty);
	WAIT_FOR(queues_are_empty);
	end_service(dur_s(10));
}

/** Three recipients with three answers; then the one that is left. */
static bool answer_by_recipient(struct session *s, struct message *m)
{
	const struct smtp_response *by_rcpt[] = {&ok, &later, &never};
	if (m->n_rcpt == 1) {
		CHECK(m->n_attempts == 1 && strchr(m->rcpt[0], 'b') != NULL);
		return deliver(s, m);
	}
	CHECK(m->n_rcpt == 3 && m->n_attempts == 0);
	session_done(s, m, by_rcpt, NULL);
	return true;
}

static void test_recipients(void **state)
{
	t.on_message = answer_by_recipient;
	service_begin(false);
	struct batch b = {.domain = "a.example.org", .n = 50, .n_rcpt = 3};
	worker_run(insert_batch, &b);
	check_all_ended_once(50);
	end_service(dur_s(10));
}

/** One at a time: those that were not tried come again at
 * once, uncharged, without the one that was served. */
static bool answer_the_first(struct session *s, struct message *m)
{
	const struct smtp_response *by_rcpt[8] = {&ok};
	CHECK(m->n_attempts == 0);
	if (m->n_rcpt == 1)
		return deliver(s, m);
	session_done(s, m, by_rcpt, NULL);
	return true;
}

static void test_recipients_not_tried(void **state)
{
	t.on_message = answer_the_first;
	service_begin(false);
	struct batch b = {.domain = "a.example.org", .n = 20, .n_rcpt = 8};
	worker_run(insert_batch, &b);
	check_all_ended_once(20);
	CHECK(t.n_taken == 160);
	end_service(dur_s(10));
}

/** A goodbye takes its time: the next message does not wait for it while the limit allows another session. */
static void say_goodbye_slowly(struct session *s)
{
	if (t.n_goodbyes == 1)
		(void)wait_at_gate();
}

static void test_goodbye_holds_nobody_up(void **state)
{
	t.idle = dur_ms(10);
	t.on_goodbye = say_goodbye_slowly;
	service_begin(false);
	insert("a.example.org", 0, 1);
	gate_size = 1;
	WAIT_FOR(gate_is_full);
	insert("a.example.org", 1, 1);
	check_all_ended_once(2);
	CHECK(t.n_at_gate == 1);
	t.is_open = true;
	end_service(dur_s(10));
}

/* --- configuration that changes --- */

static void set_limit(const char *text)
{
	char *file = xasprintf("%s/limit", service.dir);
	FILE *f = fopen(file, "we");
	CHECK(f != NULL && fputs(text, f) >= 0 && fclose(f) == 0);
	free(file);
}

static bool is_down_to_two(void)
{
	return t.n_active <= 2;
}
static _Atomic bool is_slow;
static _Atomic uint32_t n_most;

static bool deliver_slowly(struct session *s, struct message *m)
{
	uint32_t n = atomic_load(&t.n_active);
	if (n > atomic_load(&n_most))
		atomic_store(&n_most, n);
	if (atomic_load(&is_slow) && fiber_sleep(dur_ms(5), MONO_NEVER) != 0)
		err_clear();
	return deliver(s, m);
}

/** The limit is lowered while sessions run: those over it leave, the others stay and go on. */
static void test_limit_lowered(void **state)
{
	char *code = xasprintf("local f = io.open('%s/limit'); local n = tonumber(f:read('a')); f:close()",
			       service.dir);
	char *file = xasprintf("%s/limit", service.dir);
	set_limit("10");
	service_write_policy(LIST, code, "connection_limit = n, max_ready = 100, refresh_strategy = 'Epoch'",
			     "");
	t.on_message = deliver_slowly;
	is_slow = true;
	n_most = 0;
	service_begin(false);
	insert("a.example.org", 0, 15000);
	gate_size = 10;
	while (t.n_active < 10)
		usleep(1000);
	set_limit("2");
	policy_bump_epoch();
	WAIT_FOR(is_down_to_two);
	n_most = 0;
	uint32_t n_before = t.n_sessions;
	usleep(200000);
	CHECK(n_most == 2 && t.n_sessions - n_before <= 2);
	is_slow = false;
	check_all_ended_once(15000);
	end_service(dur_s(10));
	unlink(file);
	free(file);
	free(code);
}

/** Without a session, over the budget: the bodies are in the spool only, and come back. */
static bool twenty_are_ready(void)
{
	struct queue_totals q;
	queue_get_totals(&q);
	return q.n_ready == 20 && q.n_scheduled == 80;
}
static bool no_bodies_held(void)
{
	return body_total_bytes() == 0;
}
static void check_body(const struct message *m)
{
	char text[64];
	snprintf(text, sizeof(text), "Subject: %u\r\n\r\nbody of %u\r\n", number_of(m), number_of(m));
	CHECK(str_eq(str_mk(m->body->p, m->body->n_bytes), str_of(text)));
}
static bool deliver_checking_body(struct session *s, struct message *m)
{
	check_body(m);
	return deliver(s, m);
}

static void test_bodies_over_the_budget(void **state)
{
	service.body_budget_bytes = 1;
	service_write_policy(LIST, "", "connection_limit = 0, max_ready = 20", "");
	service_begin(false);
	insert("a.example.org", 0, 100);
	WAIT_FOR(twenty_are_ready);
	WAIT_FOR(no_bodies_held);
	end_service(dur_s(10));
	t.on_message = deliver_checking_body;
	service_write_policy(LIST, "", "connection_limit = 3, max_ready = 20", "");
	service_begin(true);
	check_all_ended_once(100);
	end_service(dur_s(10));
}

/* --- the end, and the next beginning --- */

static bool delay(struct session *s, struct message *m)
{
	session_done_all(s, m, &later, NULL);
	return true;
}

static bool all_scheduled(void)
{
	struct queue_totals q;
	queue_get_totals(&q);
	return q.n_scheduled == expected && q.n_ready == 0 && t.n_taken == expected;
}

static void test_recovery(void **state)
{
	struct uuid ids[200];
	t.on_message = delay;
	service_write_policy(LIST "retry_interval = '1h'", "", "", "");
	service_begin(false);
	struct batch b = {.domain = "a.example.org", .n = 200, .ids = ids};
	worker_run(insert_batch, &b);
	expected = 200;
	WAIT_FOR(all_scheduled);
	end_service(dur_s(10));

	service_begin(true);
	WAIT_FOR(all_scheduled); /* not due: nobody takes them */
	for (int i = 0; i < 200; i += 40) {
		struct service_message l = service_look_at(ids[i]);
		CHECK(l.n_attempts == 1 && l.n_rcpt == 1);
		dur_t left = wall_sub(l.due, wall_now());
		CHECK(left.ns > dur_s(3300).ns && left.ns < dur_s(3900).ns);
	}
	CHECK(t.n_taken == 200);
	end_service(dur_s(10));
}

/** Due times pass while the service is down; a message without a usable queue name ends; one whose queue the
 * policy refuses waits. */
static void insert_odd(void *arg)
{
	struct message *m[2];
	struct batch b = {.domain = "a.example.org"};
	for (uint32_t i = 0; i < 2; i++)
		m[i] = make_message(&b, 900 + i);
	meta_set_json(&m[0]->meta, STR("queue"), STR("5"));
	meta_set_str(&m[1]->meta, STR("queue"), STR("@"));
	CHECK(spool_put(service.spool, m, 2, MONO_NEVER) == 0);
	message_unref(m[0]);
	message_unref(m[1]);
}

static bool one_is_left(void)
{
	struct spool_stats st;
	spool_get_stats(service.spool, &st);
	return st.n_messages == 1;
}

static void test_recovery_of_the_unusual(void **state)
{
	service_write_policy(LIST, "", "connection_limit = 0", "");
	service_begin(false);
	insert("a.example.org", 0, 50);
	struct batch b = {
		.domain = "b.example.org", .first = 50, .n = 50, .due = wall_add(wall_now(), dur_s(1))};
	worker_run(insert_batch, &b);
	worker_run(insert_odd, NULL);
	end_service(dur_s(10));
	usleep(1000000);
	service_write_policy(LIST, "", "", "");
	service_begin(true);
	expected = 100;
	WAIT_FOR(all_ended);
	WAIT_FOR(one_is_left);
	CHECK(count_ends() == 100 && t.n_tries[900] == 0 && t.n_tries[901] == 0);
	end_service(dur_s(10));
}

/** Not due for a while, then in order of their times, never early. */
static bool deliver_in_time(struct session *s, struct message *m)
{
	CHECK(wall_now().ns >= m->due.ns);
	return deliver(s, m);
}

static void insert_later(void *arg)
{
	wall_t now = wall_now();
	for (uint32_t i = 0; i < 100; i++) {
		struct batch b = {.domain = "a.example.org",
				  .first = i,
				  .n = 1,
				  .due = wall_add(now, dur_ms(1500 - (int64_t)i * 15))};
		insert_batch(&b);
	}
}

static void test_due_times(void **state)
{
	t.on_message = deliver_in_time;
	service_begin(false);
	worker_run(insert_later, NULL);
	check_all_ended_once(100);
	end_service(dur_s(10));
}

/** A session that does not come to an end is cancelled; its message is not charged, and is there after the
 * restart. */
static void test_stop_with_a_message_in_hand(void **state)
{
	struct uuid ids[30];
	t.on_message = deliver_at_gate;
	service_write_policy(LIST, "", "connection_limit = 3", "");
	service_begin(false);
	struct batch b = {.domain = "a.example.org", .n = 30, .ids = ids};
	worker_run(insert_batch, &b);
	gate_size = 2; /* of 30 messages, with a limit of 3 */
	WAIT_FOR(gate_is_full);
	end_service(dur_ms(100));
	CHECK(count_ends() == 0);

	t.is_open = true;
	service_begin(false);
	for (int i = 0; i < 30; i++)
		CHECK(service_look_at(ids[i]).n_attempts == 0);
	end_service(dur_s(10));
	service_begin(true);
	check_all_ended_once(30);
	end_service(dur_s(10));
}

/** What is in hand is finished; nothing more is begun. */
static bool deliver_at_the_stop(struct session *s, struct message *m)
{
	atomic_fetch_add(&t.n_at_gate, 1);
	while (!session_is_stopping(s))
		CHECK(fiber_sleep(dur_ms(2), MONO_NEVER) == 0);
	atomic_fetch_sub(&t.n_at_gate, 1);
	return deliver(s, m);
}

static void test_stop_waits_for_what_is_in_hand(void **state)
{
	t.on_message = deliver_at_the_stop;
	service_write_policy(LIST, "", "connection_limit = 3", "");
	service_begin(false);
	insert("a.example.org", 0, 30);
	gate_size = 2; /* of 30 messages, with a limit of 3 */
	WAIT_FOR(gate_is_full);
	end_service(dur_s(30));
	CHECK(count_ends() == 2);
	t.on_message = deliver;
	service_begin(true);
	check_all_ended_once(30);
	end_service(dur_s(10));
}

/** Sessions that only wait for a message end at once. */
static void test_stop_while_idle(void **state)
{
	t.idle = dur_s(600);
	service_begin(false);
	insert("a.example.org", 0, 10);
	check_all_ended_once(10);
	CHECK(t.n_active > 0);
	mono_t began = mono_now();
	end_service(dur_s(30));
	CHECK(mono_sub(mono_now(), began).ns < dur_s(20).ns);
}

/** While the policy is asked, in either place: the messages stay as they are. */
static void test_stop_while_resolving(void **state)
{
	static const char *const sleeps[] = {"kumo.sleep(60)", ""};
	for (int i = 0; i < 2; i++) {
		struct uuid ids[20];
		service_write_policy(
			LIST "egress_pool = 'p'", sleeps[i], "",
			i == 0 ? two_sources
			       : "kumo.on('get_egress_pool', function(name) kumo.sleep(60) end)");
		service_begin(false);
		struct batch b = {.domain = "a.example.org", .first = (uint32_t)i * 20, .n = 20, .ids = ids};
		worker_run(insert_batch, &b);
		usleep(50000); /* the resolver is in the handler, or has yet to get there: both are fine */
		end_service(dur_s(1));
		service_write_policy(LIST, "", "connection_limit = 0", "");
		service_begin(true);
		for (int k = 0; k < 20; k++)
			CHECK(service_look_at(ids[k]).n_attempts == 0);
		end_service(dur_s(10));
		CHECK(t.n_taken == 0);
	}
	service_write_policy(LIST, "", "", "");
	service_begin(true);
	check_all_ended_once(40);
	end_service(dur_s(10));
}

/** A policy that fails on the way out delays with an attempt charged, again and again, and mail flows once it
 * is mended. */
static void test_policy_fails(void **state)
{
	char *code = xasprintf("if io.open('%s/limit') == nil then error('broken') end", service.dir),
	     *file = xasprintf("%s/limit", service.dir);
	service_write_policy(LIST "retry_interval = '100ms'", code, "", "");
	service_begin(false);
	insert("a.example.org", 0, 20);
	usleep(1500000);
	CHECK(t.n_taken == 0);
	set_limit("1");
	check_all_ended_once(20);
	end_service(dur_s(10));
	unlink(file);
	free(file);
	free(code);
}

static void get_bad_names(void *arg)
{
	static const str_t bad[] = {{"", 0}, {"@", 1}, {"a@", 2}, {"a\0b", 3}, {"x:y@", 4}, {"!r", 2}};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		CHECK(sched_queue_get(bad[i], MONO_NEVER) == NULL);
		CHECK(err_is(ERR_INVALID));
		err_clear();
	}
	struct sched_queue *a = sched_queue_get(STR("c:t@x.example.org!y"), MONO_NEVER);
	struct sched_queue *b = sched_queue_get(STR("c:t@x.example.org!y"), MONO_NEVER);
	CHECK(a != NULL && a == b && !sched_queue_is_null(a));
	sched_queue_unref(a);
	sched_queue_unref(b);
	a = sched_queue_get(STR("null"), MONO_NEVER);
	CHECK(a != NULL && sched_queue_is_null(a));
	sched_queue_unref(a);
}

static void test_names(void **state)
{
	service_begin(false);
	worker_run(get_bad_names, NULL);
	end_service(dur_s(10));
}

/* --- everything at once --- */

static bool do_anything(struct session *s, struct message *m)
{
	const struct smtp_response *by_rcpt[8] = {NULL};
	uint32_t n = number_of(m);
	if (random_below(8) == 0 && fiber_sleep(dur_ms(1), MONO_NEVER) != 0) {
		err_clear();
		session_return(s, m);
		return false;
	}
	switch (random_below(16)) {
	case 0:
		session_return(s, m);
		return false;
	case 1:
		session_return(s, m);
		return true;
	case 2:
		session_done_all(s, m, &later, NULL);
		return true;
	case 3:
		session_note_failure(s, m, &later, NULL);
		session_done_all(s, m, &later, NULL);
		return false;
	case 4:
		if (random_below(20) == 0)
			session_fail_queue(s, m, &limbo);
		else
			session_done_all(s, m, &later, NULL);
		return random_below(2) == 0;
	case 5:
		session_note_connected(s);
		(void)session_note_plan_failed(s);
		break;
	default:
		break;
	}
	if (m->n_rcpt > 1) {
		by_rcpt[random_below(m->n_rcpt)] = random_below(2) == 0 ? &ok : &never;
		by_rcpt[random_below(m->n_rcpt)] = &later;
		session_done(s, m, by_rcpt, NULL);
		return true;
	}
	note_end(n);
	session_done_all(s, m, random_below(2) == 0 ? &ok : &never, NULL);
	return true;
}

static void insert_some(void *arg)
{
	static const char *const domain[] = {"a.example.org", "b.example.org", "t@c.example.org",
					     "k:t@d.example.org"};
	const struct batch *job = arg;
	for (uint32_t i = 0; i < job->n; i++) {
		struct batch b = {.domain = domain[(job->first + i) % 4],
				  .first = job->first + i,
				  .n = 1,
				  .n_rcpt = 1 + (uint32_t)random_below(4)};
		insert_batch(&b);
	}
}

/** With restarts in between, at moments that nobody chose. */
static void test_anything(void **state)
{
	enum { ROUNDS = 5, EACH = CHECK_IS_SANITIZED ? 200 : 600 };
	t.on_message = do_anything;
	t.idle = dur_ms(5);
	service.body_budget_bytes = 500;
	service_write_policy(LIST "retry_interval = '50ms', max_retry_interval = '200ms', egress_pool = 'p', "
				  "refresh_interval = '1s'",
			     "", "connection_limit = 3, max_ready = 4, refresh_interval = '1s'",
			     "kumo.on('get_egress_pool', function(name) return kumo.make_egress_pool { name "
			     "= name, ttl = '1s', entries = {\n"
			     "  { name = 'one', weight = 3 }, { name = 'two' } } } end)\n"
			     "kumo.on('get_egress_source', function(name) return kumo.make_egress_source { "
			     "name = name, ttl = '0s' } end)\n");
	for (uint32_t i = 0; i < ROUNDS; i++) {
		struct batch job[2] = {{.first = i * 2 * EACH, .n = EACH},
				       {.first = (i * 2 + 1) * EACH, .n = EACH}};
		service_begin(i > 0);
		worker_start_fiber(worker_get(1), "inserts", insert_some, &job[1]);
		worker_run(insert_some, &job[0]);
		expected = (i + 1) * EACH;
		if (i == ROUNDS - 1)
			check_all_ended_once(ROUNDS * 2 * EACH);
		else
			WAIT_FOR(all_ended);
		end_service(dur_s(20));
	}
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	service_register();
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_order),
		T(test_max_ready_of_one),
		T(test_hand_over),
		T(test_limit),
		T(test_a_flood_does_not_starve_others),
		T(test_two_sources),
		T(test_return),
		T(test_fail_queue),
		T(test_bounce_queue),
		T(test_recipients),
		T(test_recipients_not_tried),
		T(test_goodbye_holds_nobody_up),
		T(test_limit_lowered),
		T(test_bodies_over_the_budget),
		T(test_recovery),
		T(test_recovery_of_the_unusual),
		T(test_due_times),
		T(test_stop_with_a_message_in_hand),
		T(test_stop_waits_for_what_is_in_hand),
		T(test_stop_while_idle),
		T(test_stop_while_resolving),
		T(test_policy_fails),
		T(test_names),
		T(test_anything),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
