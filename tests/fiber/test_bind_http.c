/* test_bind_http.c - kumo.start_http_listener: what it refuses and in which words, that a port is bound by
 * the call and answers only once it is started, and that validating opens nothing. */
#include "http_raw.h"
#include "policy_env.h"

#include "api/api.h"
#include "bind/bind_http.h"
#include "stderr_capture.h"

/* Runs the policy with these lines as its init handler: 0, or -1 with the error. */
static int run_init(const char *init, bool is_validating)
{
	char *text = xasprintf("local kumo = require 'kumo'\nkumo.on('init', function()\n%s\nend)\n", init);
	dir_write(env.dir, "policy.lua", text);
	free(text);
	struct policy_params p = {
		.file = env.policy_path, .is_validating = is_validating, .version = ENV_VERSION};
	int rc = policy_start(&p);
	if (rc == 0)
		rc = policy_fire("init", mono_after(dur_s(30)));
	return rc;
}

static const struct {
	const char *init, *error;
} refused[] = {
	{"kumo.start_http_listener { lissten = '127.0.0.1:0' }",
	 "unknown field `lissten`, expected one of `hostname`, `listen`"},
	{"kumo.start_http_listener { lissten = '127.0.0.1:0' }", "(did you mean `listen`?)"},
	{"kumo.start_http_listener { lissten = '127.0.0.1:0' }", "policy.lua:3"},
	{"kumo.start_http_listener { listen = 'nowhere' }", "nowhere"},
	{"kumo.start_http_listener { listen = 8000 }", "invalid type: integer `8000`"},
	{"kumo.start_http_listener { trusted_hosts = { '300.1.1.1' } }",
	 "300.1.1.1: 300.1.1.1 is not a valid CIDR"},
	{"kumo.start_http_listener { trusted_hosts = '127.0.0.1' }", "invalid type: string \"127.0.0.1\""},
	{"kumo.start_http_listener { request_body_limit = -1 }", "invalid value: integer `-1`"},
	{"kumo.start_http_listener { request_body_limit = '1' }", "invalid type: string \"1\""},
	{"kumo.start_http_listener { use_tls = 'maybe' }",
	 "invalid type: string \"maybe\", expected a boolean"},
	{"kumo.start_http_listener { use_tls = true, tls_certificate = '/nonexistent.pem' }",
	 "`/nonexistent.pem`: No such file"},
	{"kumo.start_http_listener { use_tls = true, tls_private_key = '/x' }",
	 "tls_private_key is given without tls_certificate"},
	{"kumo.start_http_listener { tls_minimum_version = '1.1' }",
	 "unknown variant `1.1`, expected one of `1.2`, `1.3`"},
	{"kumo.start_http_listener { idempotency_ttl = '31 days' }",
	 "field `idempotency_ttl`: invalid value, expected a duration of up to 30 days"},
	{"kumo.start_http_listener { idempotency_ttl = 'ever' }", "expected a duration"},
	{"kumo.start_http_listener { idempotency_ttl = -1 }", "expected a duration"},
	{"kumo.start_http_listener 'x'", "deserialize error"},
	{"kumo.start_http_listener()", "deserialize error"},
};

static void refuses(void *arg)
{
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
		for (int is_validating = 0; is_validating < 2; is_validating++) {
			CHECK(run_init(refused[i].init, is_validating) == -1);
			if (strstr(err_text(), refused[i].error) == NULL) {
				fprintf(stderr, "%s: %s\n", refused[i].init, err_text());
				abort();
			}
			err_clear();
			policy_stop();
		}
	}
	CHECK(run_init("end)\nkumo.start_http_listener { listen = '127.0.0.1:0' }\n"
		       "kumo.on('quiet', function()",
		       false) == -1);
	CHECK(strstr(err_text(), "kumo.start_http_listener") != NULL && strstr(err_text(), "init") != NULL);
	err_clear();
	policy_stop();
}

static void test_refuses(void **state)
{
	worker_run(refuses, NULL);
}

static void opens_two(void *arg)
{
	CHECK(run_init("kumo.start_http_listener { listen = '127.0.0.1:0' }\n"
		       "kumo.start_http_listener { listen = '127.0.0.1:0', "
		       "trusted_hosts = {}, hostname = 'mx.example.com',\n"
		       "  request_body_limit = 10, use_tls = false }",
		       false) == 0);
	policy_stop();
}

static void starts(void *arg)
{
	http_listeners_start_all();
}

static void closes(void *arg)
{
	http_listeners_close_all(mono_after(dur_s(10)));
}

/* The port in the next "http listener on ADDR" line of the log. */
static struct net_addr next_listener(const char **log)
{
	static const char mark[] = "http listener on ";
	struct net_addr addr;
	const char *at = strstr(*log, mark);
	assert_non_null(at);
	at += sizeof(mark) - 1;
	assert_int_equal(net_addr_parse(str_mk(at, strcspn(at, "\n ")), &addr), 0);
	assert_true(net_addr_port(&addr) != 0);
	*log = at;
	return addr;
}

static void opens_again(void *arg)
{
	char *init = arg;
	CHECK(run_init(init, false) == -1);
	CHECK(strstr(err_text(), "Address already in use") != NULL &&
	      strstr(err_text(), "127.0.0.1:") != NULL);
	err_clear();
	policy_stop();
	CHECK(run_init(init, true) == 0); /* validating binds nothing */
	policy_stop();
}

static void test_opens(void **state)
{
	struct raw_answer a = {0};
	struct stderr_capture capture;
	char text[4096] = "";
	stderr_capture_begin(&capture);
	worker_run(opens_two, NULL);
	assert_true(pread(capture.fd, text, sizeof(text) - 1, 0) > 0);
	stderr_capture_end(&capture);
	const char *log = text;
	struct net_addr first = next_listener(&log), second = next_listener(&log);
	assert_true(net_addr_port(&first) != net_addr_port(&second));

	struct raw one = raw_open(&first), two = raw_open(&second);
	raw_send_z(&one, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
	raw_send_z(&two, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
	char byte;
	assert_true(recv(one.fd, &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN); /* bound, not started */
	worker_run(starts, NULL);
	assert_true(raw_read(&one, &a, false));
	assert_int_equal(a.status, 200);
	assert_true(raw_read(&two, &a, false));
	assert_int_equal(a.status, 401); /* a setting of its own */
	raw_close(&one);
	raw_close(&two);

	char *init = xasprintf("kumo.start_http_listener { listen = '127.0.0.1:%u' }", net_addr_port(&first));
	worker_run(opens_again, init);
	free(init);
	worker_run(closes, NULL);
	raw_answer_fini(&a);
}

static int setup(void **state)
{
	env_begin(2);
	bind_register_http();
	api_register_routes();
	return 0;
}

static int teardown(void **state)
{
	env_end();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refuses),
		cmocka_unit_test(test_opens),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
