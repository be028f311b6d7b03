/* test_smtp_out.c - the SMTP client with messages that HTTP cannot make: many recipients, bodies and
 * addresses that no parser has seen; and stops while the peer is silent at each step. The peer is a thread
 * with a blocking socket, scripted by functions. What became of the recipients is read from the spool. (What
 * a peer may do to a message with one recipient: tests/e2e/test_smtp_out.py.) */
#include "queue_service.h"

#include "smtp/out.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>

#define NO_RESET "enable_rset = false"

/* --- the peer --- */

enum step { STEP_BANNER, STEP_EHLO, STEP_MAIL, STEP_RCPT, STEP_DATA, STEP_BODY, STEP_OTHER };

static struct peer {
	int fd;
	uint16_t port;
	pthread_t thread;
	/* What is answered; NULL: the usual. "" closes, "-" is silent for ever. n_rcpt: RCPTs of this
	 * transaction so far. */
	const char *(*answer)(enum step step, const char *line);
	bool has_pipelining, has_sender;
	_Atomic bool is_silent; /* it has come to a "-" */
	pthread_mutex_t lock;	/* for what the test reads */
	struct buf log;		/* every command, an LF after each */
	struct buf data;	/* every body as it came, with its final dot line */
	_Atomic uint32_t n_connections, n_messages;
	uint32_t n_rcpt, n_accepted, n_transactions;
	struct buf accepted; /* recipients of accepted messages */
} peer = {.lock = PTHREAD_MUTEX_INITIALIZER};

static bool peer_say(int fd, const char *text)
{
	if (text[0] == 0)
		return false;
	if (text[0] == '-') {
		char c;
		atomic_store(&peer.is_silent, true);
		while (recv(fd, &c, 1, 0) > 0)
			;
		return false;
	}
	char *line = xasprintf("%s\r\n", text);
	bool is_sent = send(fd, line, strlen(line), MSG_NOSIGNAL) == (ssize_t)strlen(line);
	free(line);
	return is_sent;
}

static const char *peer_answer(enum step step, const char *line, const char *usual)
{
	const char *text = peer.answer != NULL ? peer.answer(step, line) : NULL;
	return text != NULL ? text : usual;
}

/** The next line without CRLF, in `line`; false at the end. */
static bool peer_read_line(int fd, struct buf *in, struct buf *line)
{
	for (;;) {
		ptrdiff_t lf = str_chr(buf_str(in), '\n', 0);
		if (lf >= 0) {
			buf_clear(line);
			buf_add(line, in->p, (size_t)lf + 1);
			str_t rest = str_skip(buf_str(in), (size_t)lf + 1);
			memmove(in->p, rest.p, rest.n);
			buf_truncate(in, rest.n);
			return true;
		}
		char block[4096];
		ssize_t n = recv(fd, block, sizeof(block), 0);
		if (n <= 0)
			return false;
		buf_add(in, block, (size_t)n);
	}
}

static bool peer_data(int fd, struct buf *in, struct buf *line, struct buf *rcpt)
{
	const char *text = peer_answer(STEP_DATA, "DATA", peer.n_accepted > 0 ? "354 go" : "554 nobody");
	if (!peer_say(fd, text) || text[0] != '3')
		return text[0] != 0 && text[0] != '-';
	do {
		if (!peer_read_line(fd, in, line))
			return false;
		pthread_mutex_lock(&peer.lock);
		buf_add_str(&peer.data, buf_str(line));
		pthread_mutex_unlock(&peer.lock);
	} while (!str_eq(buf_str(line), STR(".\r\n")));
	text = peer_answer(STEP_BODY, ".", "250 taken");
	if (text[0] == '2') {
		pthread_mutex_lock(&peer.lock);
		buf_add_str(&peer.accepted, buf_str(rcpt));
		pthread_mutex_unlock(&peer.lock);
		atomic_fetch_add(&peer.n_messages, 1);
	}
	return peer_say(fd, text);
}

static bool peer_command(int fd, struct buf *in, struct buf *line, struct buf *rcpt)
{
	if (!peer_read_line(fd, in, line))
		return false;
	pthread_mutex_lock(&peer.lock);
	buf_add_str(&peer.log, buf_str(line));
	pthread_mutex_unlock(&peer.lock);
	str_t s = str_trim(buf_str(line));
	char *z = str_dup(s);
	bool is_alive = true;
	const char *text;
	if (str_starts(s, STR("EHLO"))) {
		is_alive = peer_say(fd, peer_answer(STEP_EHLO, z,
						    peer.has_pipelining
							    ? "250-peer\r\n250-8BITMIME\r\n250 PIPELINING"
							    : "250 peer"));
	} else if (str_starts(s, STR("MAIL"))) {
		peer.n_rcpt = peer.n_accepted = 0;
		peer.n_transactions++;
		buf_clear(rcpt);
		text = peer_answer(STEP_MAIL, z, "250 sender");
		peer.has_sender = text[0] == '2';
		is_alive = peer_say(fd, text);
	} else if (str_starts(s, STR("RCPT"))) {
		peer.n_rcpt++;
		text = peer.has_sender ? peer_answer(STEP_RCPT, z, "250 recipient") : "503 who sends";
		if (text[0] == '2') {
			peer.n_accepted++;
			buf_add_str(rcpt, str_skip(s, 8));
		}
		is_alive = peer_say(fd, text);
	} else if (str_eq(s, STR("DATA"))) {
		is_alive = peer_data(fd, in, line, rcpt);
	} else {
		is_alive = peer_say(
			fd, peer_answer(STEP_OTHER, z, str_eq(s, STR("QUIT")) ? "221 bye" : "250 ok"));
	}
	free(z);
	return is_alive;
}

static void *peer_main(void *arg)
{
	struct buf in = BUF_INIT, line = BUF_INIT, rcpt = BUF_INIT;
	for (int fd; (fd = accept(peer.fd, NULL, NULL)) >= 0; close(fd)) {
		atomic_fetch_add(&peer.n_connections, 1);
		buf_clear(&in);
		peer.n_rcpt = peer.n_accepted = 0;
		if (peer_say(fd, peer_answer(STEP_BANNER, "", "220 peer")))
			while (peer_command(fd, &in, &line, &rcpt))
				;
		shutdown(fd, SHUT_RDWR);
	}
	buf_fini(&in);
	buf_fini(&line);
	buf_fini(&rcpt);
	return NULL;
}

static void peer_start(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof(a);
	peer.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK(peer.fd >= 0 && bind(peer.fd, (struct sockaddr *)&a, n) == 0 && listen(peer.fd, 100) == 0);
	CHECK(getsockname(peer.fd, (struct sockaddr *)&a, &n) == 0);
	peer.port = ntohs(a.sin_port);
	peer.answer = NULL;
	peer.has_pipelining = true;
	peer.is_silent = false;
	peer.n_connections = peer.n_messages = peer.n_transactions = 0;
	CHECK(pthread_create(&peer.thread, NULL, peer_main, NULL) == 0);
}

static void peer_stop(void)
{
	shutdown(peer.fd, SHUT_RDWR);
	pthread_join(peer.thread, NULL);
	close(peer.fd);
	buf_fini(&peer.log);
	buf_fini(&peer.data);
	buf_fini(&peer.accepted);
}

static bool peer_has_heard(const char *text)
{
	pthread_mutex_lock(&peer.lock);
	bool is_so = peer.log.n > 0 && memmem(peer.log.p, peer.log.n, text, strlen(text)) != NULL;
	pthread_mutex_unlock(&peer.lock);
	return is_so;
}

static void check_accepted(const char *expected)
{
	pthread_mutex_lock(&peer.lock);
	CHECK(str_eq(buf_str(&peer.accepted), str_of(expected)));
	pthread_mutex_unlock(&peer.lock);
}

/* --- the service --- */

static void write_policy(const char *queue, const char *path)
{
	char *q = xasprintf("protocol = { smtp = { mx_list = { '127.0.0.1:%u' } } }, %s", peer.port, queue);
	char *p = xasprintf("prohibited_hosts = {}, connection_limit = 1, idle_timeout = '100ms', %s", path);
	service_write_policy(q, "", p, "");
	free(q);
	free(p);
}

static int setup(void **state)
{
	service_make_dir();
	service.deliverer = &smtp_deliverer;
	peer_start();
	return 0;
}

static int teardown(void **state)
{
	peer_stop();
	service_remove_dir();
	return 0;
}

struct given {
	const char *rcpt[16];
	size_t n_rcpt;
	const char *prefix;
	str_t body;
	struct uuid id; /* out */
};

static void insert_given(void *arg)
{
	struct given *g = arg;
	str_t rcpt[16];
	for (size_t i = 0; i < g->n_rcpt; i++)
		rcpt[i] = str_of(g->rcpt[i]);
	struct body *body = body_new(g->body.n > 0 ? g->body : STR("Subject: x\r\n\r\nx\r\n"));
	struct message *m = message_new(STR("s@example.com"), rcpt, (uint32_t)g->n_rcpt, body);
	body_unref(body);
	if (g->prefix != NULL)
		message_set_prefix(m, str_of(g->prefix));
	g->id = m->id;
	CHECK(spool_put(service.spool, &m, 1, MONO_NEVER) == 0);
	struct sched_queue *q = sched_queue_get(STR("example.org"), MONO_NEVER);
	CHECK(q != NULL);
	sched_queue_insert(q, m);
	sched_queue_unref(q);
}

static struct given eight(void)
{
	return (struct given){.rcpt = {"a@x", "b@x", "c@x", "d@x", "e@x", "f@x", "g@x", "h@x"}, .n_rcpt = 8};
}

static void wait_until(bool (*is_so)(const struct uuid *id), const struct uuid *id, const char *what)
{
	mono_t end = mono_after(dur_s(60));
	while (!is_so(id)) {
		if (mono_is_past(end)) {
			pthread_mutex_lock(&peer.lock);
			fprintf(stderr, "waited in vain for %s; the peer heard:\n%.*s", what, (int)peer.log.n,
				peer.log.p);
			abort();
		}
		usleep(2000);
	}
}
#define WAIT_UNTIL(is_so, id) wait_until(is_so, id, #is_so)

static bool is_gone(const struct uuid *id)
{
	struct spool_stats st;
	spool_get_stats(service.spool, &st);
	return st.n_messages == 0;
}
static bool was_tried_once(const struct uuid *id)
{
	return service_look_at(*id).n_attempts == 1;
}
static bool is_silent(const struct uuid *id)
{
	return atomic_load(&peer.is_silent);
}

/* --- many recipients --- */

static void test_batches(void **state)
{
	struct given g = eight();
	write_policy("", "max_recipients_per_batch = 3");
	service_begin(false);
	worker_run(insert_given, &g);
	WAIT_UNTIL(is_gone, &g.id);
	service_end(dur_s(10));
	check_accepted("<a@x><b@x><c@x><d@x><e@x><f@x><g@x><h@x>");
	CHECK(peer.n_messages == 3 && peer.n_transactions == 3 && peer.n_connections == 1);
}

static const char *two_at_a_time(enum step step, const char *line)
{
	return step == STEP_RCPT && peer.n_rcpt > 2 ? "452 too many recipients" : NULL;
}

static const char *two_at_a_time_enhanced(enum step step, const char *line)
{
	return step == STEP_RCPT && peer.n_rcpt > 2 ? "550 4.5.3 too many recipients" : NULL;
}

/** RFC 5321 section 4.5.3.1.10: the rest comes again at once, on the same connection. */
static void test_too_many_recipients(void **state)
{
	for (int i = 0; i < 4; i++) {
		struct given g = eight();
		peer.answer = i % 2 == 0 ? two_at_a_time : two_at_a_time_enhanced;
		peer.has_pipelining = i < 2;
		peer.n_messages = peer.n_transactions = peer.n_connections = 0;
		buf_clear(&peer.accepted);
		write_policy("retry_interval = '1h'", i == 3 ? NO_RESET : "");
		service_begin(false);
		worker_run(insert_given, &g);
		WAIT_UNTIL(is_gone, &g.id);
		service_end(dur_s(10));
		check_accepted("<a@x><b@x><c@x><d@x><e@x><f@x><g@x><h@x>");
		CHECK(peer.n_messages == 4 && peer.n_transactions == 4 && peer.n_connections == 1);
	}
}

static const char *a_to_c_later(enum step step, const char *line)
{
	return step == STEP_RCPT && strchr("abc", line[9]) != NULL ? "450 later" : NULL;
}

/** Recipients that fail every time do not stand before the others. */
static void test_batches_behind_failures(void **state)
{
	struct given g = eight();
	peer.answer = a_to_c_later;
	write_policy("retry_interval = '1h'", "max_recipients_per_batch = 3");
	service_begin(false);
	worker_run(insert_given, &g);
	WAIT_UNTIL(was_tried_once, &g.id);
	struct service_message l = service_look_at(g.id);
	CHECK(l.n_rcpt == 3 && strcmp(l.rcpt, "a@x") == 0);
	service_end(dur_s(10));
	check_accepted("<d@x><e@x><f@x><g@x><h@x>");
}

static const char *b_later_and_silent_in_the_third(enum step step, const char *line)
{
	if (step == STEP_RCPT && line[9] == 'b')
		return "450 later";
	return step == STEP_MAIL && peer.n_transactions == 3 ? "-" : NULL;
}

static bool is_down_to_three(const struct uuid *id)
{
	struct service_message l = service_look_at(*id);
	return l.n_rcpt == 3 && strcmp(l.rcpt, "b@x") == 0 && l.n_attempts == 0;
}

/** What a transaction has delivered is out of the spool before the next one ends, which may take long. */
static void test_batches_are_settled_one_by_one(void **state)
{
	struct given g = eight();
	peer.answer = b_later_and_silent_in_the_third;
	write_policy("retry_interval = '1h'", "max_recipients_per_batch = 3");
	service_begin(false);
	worker_run(insert_given, &g);
	WAIT_UNTIL(is_silent, &g.id);
	WAIT_UNTIL(is_down_to_three, &g.id); /* it is written in order with the rest, and a moment later */
	service_end(dur_ms(50));
	check_accepted("<a@x><c@x><d@x><e@x><f@x>");
}

static const char *of_each_kind(enum step step, const char *line)
{
	if (step != STEP_RCPT)
		return NULL;
	switch (line[9]) {
	case 'b':
		return "450 4.2.1 later";
	case 'c':
		return "550 5.1.1 never";
	case 'd':
		return "550 5.7.1 never";
	case 'e':
		return "452 4.3.1 disk full";
	case 'f':
		return "251 will forward";
	default:
		return NULL;
	}
}

static void test_each_recipient_has_its_answer(void **state)
{
	for (int i = 0; i < 2; i++) {
		struct given g = eight();
		peer.answer = of_each_kind;
		peer.has_pipelining = i == 0;
		buf_clear(&peer.accepted);
		write_policy("retry_interval = '1h'", "");
		service_begin(false);
		worker_run(insert_given, &g);
		WAIT_UNTIL(was_tried_once, &g.id);
		struct service_message l = service_look_at(g.id);
		CHECK(l.n_rcpt == 2 && strcmp(l.rcpt, "b@x") == 0);
		service_end(dur_s(10));
		check_accepted("<a@x><f@x><g@x><h@x>");
	}
}

static const char *close_in_the_second(enum step step, const char *line)
{
	if (step == STEP_RCPT && line[9] == 'f')
		return "550 5.1.1 never";
	return peer.n_transactions == 2 && step == STEP_DATA ? "" : NULL;
}

/** What the first transaction delivered stays delivered, what was refused in the second stays refused; the
 * rest is tried again. */
static void test_connection_lost_between(void **state)
{
	struct given g = eight();
	peer.answer = close_in_the_second;
	write_policy("retry_interval = '1h'", "max_recipients_per_batch = 4");
	service_begin(false);
	worker_run(insert_given, &g);
	WAIT_UNTIL(was_tried_once, &g.id);
	struct service_message l = service_look_at(g.id);
	CHECK(l.n_rcpt == 3 && strcmp(l.rcpt, "e@x") == 0);
	service_end(dur_s(10));
	check_accepted("<a@x><b@x><c@x><d@x>");
}

static const char *refuse_reset(enum step step, const char *line)
{
	return step == STEP_OTHER && strcmp(line, "RSET") == 0 ? "502 what" : NULL;
}

/** Each batch on a connection of its own, since the peer does not take RSET; uncharged. */
static void test_reset_refused_between(void **state)
{
	struct given g = eight();
	peer.answer = refuse_reset;
	write_policy("retry_interval = '1h'", "max_recipients_per_batch = 3");
	service_begin(false);
	worker_run(insert_given, &g);
	WAIT_UNTIL(is_gone, &g.id);
	service_end(dur_s(10));
	check_accepted("<a@x><b@x><c@x><d@x><e@x><f@x><g@x><h@x>");
	CHECK(peer.n_messages == 3 && peer.n_connections == 3);
}

static const char *refuse_sender(enum step step, const char *line)
{
	return step == STEP_MAIL ? "550 5.7.1 not you" : NULL;
}

/** The sender's refusal is true for all; nobody is asked about the others. */
static void test_sender_refused(void **state)
{
	struct given g = eight();
	peer.answer = refuse_sender;
	write_policy("", "max_recipients_per_batch = 3");
	service_begin(false);
	worker_run(insert_given, &g);
	WAIT_UNTIL(is_gone, &g.id);
	service_end(dur_s(10));
	CHECK(peer.n_transactions == 1 && peer.n_messages == 0);
}

static const char *closing_at_c(enum step step, const char *line)
{
	return step == STEP_RCPT && line[9] == 'c' ? "421 4.7.0 enough" : NULL;
}

/** 421 in the middle of the recipients: those before are not delivered to, none is lost. */
static void test_closing_at_a_recipient(void **state)
{
	for (int i = 0; i < 2; i++) {
		struct given g = eight();
		peer.answer = closing_at_c;
		peer.has_pipelining = i == 0;
		write_policy("retry_interval = '1h'", "");
		service_begin(false);
		worker_run(insert_given, &g);
		WAIT_UNTIL(was_tried_once, &g.id);
		CHECK(service_look_at(g.id).n_rcpt == 8);
		service_end(dur_s(10));
		check_accepted("");
		CHECK(peer.has_pipelining || !peer_has_heard("RCPT TO:<d@x>"));
		buf_clear(&peer.log);
	}
}

/* --- what is sent --- */

static const struct {
	const char *prefix;
	str_t body;
	const char *wire;
} bodies[] = {
	{NULL, {"a\n.\nb\n", 6}, "a\r\n..\r\nb\r\n.\r\n"},
	{NULL, {"a\r\n.\r\nb\r\n", 9}, "a\r\n..\r\nb\r\n.\r\n"},
	{NULL, {"a\r.\r\nb\r\n", 8}, "a\r\n..\r\nb\r\n.\r\n"},
	{NULL, {"a\n.\r\nQUIT\r\n", 11}, "a\r\n..\r\nQUIT\r\n.\r\n"},
	{NULL, {"a\r\n.\nQUIT\n", 10}, "a\r\n..\r\nQUIT\r\n.\r\n"},
	{NULL, {"a\r\n.\rQUIT\r", 10}, "a\r\n..\r\nQUIT\r\n.\r\n"},
	{NULL, {".", 1}, "..\r\n.\r\n"},
	{NULL, {"\r", 1}, "\r\n.\r\n"},
	{NULL, {"no end", 6}, "no end\r\n.\r\n"},
	{"X: 1\r\n", {".dot\r\n", 6}, "X: 1\r\n..dot\r\n.\r\n"},
	{"X: 1\r\n", {"plain\r\n", 7}, "X: 1\r\nplain\r\n.\r\n"},
	{".X: 1\r\n", {"plain\r\n", 7}, "..X: 1\r\nplain\r\n.\r\n"},
	{"X: no end", {".dot\r\n", 6}, "X: no end.dot\r\n.\r\n"},
	{"X: 1\n", {"plain\r\n", 7}, "X: 1\r\nplain\r\n.\r\n"},
	{NULL, {"\xff\r\n.\0\r\n", 7}, NULL},
};

static void test_bodies(void **state)
{
	write_policy("", "ignore_8bit_checks = true");
	service_begin(false);
	for (size_t i = 0; i < ARRAY_SIZE(bodies); i++) {
		struct given g = {
			.rcpt = {"a@x"}, .n_rcpt = 1, .prefix = bodies[i].prefix, .body = bodies[i].body};
		uint32_t n = peer.n_messages;
		worker_run(insert_given, &g);
		WAIT_UNTIL(is_gone, &g.id);
		CHECK(peer.n_messages == n + 1);
		pthread_mutex_lock(&peer.lock);
		str_t expected =
			bodies[i].wire != NULL ? str_of(bodies[i].wire) : STR("\xff\r\n..\0\r\n.\r\n");
		if (!str_eq(buf_str(&peer.data), expected)) {
			fprintf(stderr, "case %zu\n", i);
			CHECK(str_eq(buf_str(&peer.data), expected));
		}
		buf_clear(&peer.data);
		pthread_mutex_unlock(&peer.lock);
	}
	service_end(dur_s(10));
	CHECK(!peer_has_heard("QUIT\r\nQUIT"));
}

/** An address is no command, whatever way it got here. */
static void test_addresses(void **state)
{
	static const char *const bad[] = {"a@x>\r\nRSET\r\nMAIL FROM:<b@x", "a@x\r", "a@x\nDATA", "\x01@x",
					  "a\x7f@x"};
	write_policy("", "");
	service_begin(false);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct given g = {.rcpt = {"fine@x", bad[i]}, .n_rcpt = 2};
		worker_run(insert_given, &g);
		WAIT_UNTIL(is_gone, &g.id);
	}
	service_end(dur_s(10));
	CHECK(peer.n_transactions == 0 && !peer_has_heard("RSET") && !peer_has_heard("MAIL"));
}

/* --- stops --- */

static enum step silent_at;
static const char *silent(enum step step, const char *line)
{
	return step == silent_at ? "-" : NULL;
}

/** At each step: nothing is charged, nothing is lost; nothing is sent twice but what was sent whole and not
 * answered. */
static void test_stop_at_each_step(void **state)
{
	static const enum step steps[] = {STEP_BANNER, STEP_EHLO, STEP_MAIL, STEP_RCPT, STEP_DATA, STEP_BODY};
	for (size_t i = 0; i < 2 * ARRAY_SIZE(steps); i++) {
		struct given g = eight();
		peer.has_pipelining = i % 2 == 0;
		silent_at = steps[i / 2];
		peer.answer = silent;
		peer.is_silent = false;
		write_policy("retry_interval = '1h'", "");
		service_begin(false);
		worker_run(insert_given, &g);
		WAIT_UNTIL(is_silent, &g.id);
		service_end(dur_ms(50));
		buf_clear(&peer.accepted);
		peer.answer = NULL;
		service_begin(true);
		WAIT_UNTIL(is_gone, &g.id);
		service_end(dur_s(10));
		check_accepted("<a@x><b@x><c@x><d@x><e@x><f@x><g@x><h@x>");
	}
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	service_register();
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_batches),
		T(test_too_many_recipients),
		T(test_batches_behind_failures),
		T(test_batches_are_settled_one_by_one),
		T(test_each_recipient_has_its_answer),
		T(test_connection_lost_between),
		T(test_reset_refused_between),
		T(test_sender_refused),
		T(test_closing_at_a_recipient),
		T(test_bodies),
		T(test_addresses),
		T(test_stop_at_each_step),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
