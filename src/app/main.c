/* main.c - the daemon cirrusd. The main thread only waits for signals;
 * everything else runs in fibers on the workers. Signals are blocked before
 * the first thread is made, so that none takes them but sigwaitinfo here. */
#include "app/options.h"
#include "app/privilege.h"
#include "app/service.h"
#include "base/err.h"
#include "base/fault.h"
#include "base/log.h"
#include "bind/bind.h"
#include "fiber/offload.h"
#include "fiber/worker.h"
#include "policy/policy.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#ifdef CIRRUS_JEMALLOC
/* Few arenas and quick purging: the working set of a mail server is its queue, not its allocator's caches. */
extern const char *malloc_conf;
const char *malloc_conf =
	"narenas:4,tcache_max:4096,dirty_decay_ms:1000,muzzy_decay_ms:0,background_thread:false";
#endif

#define OFFLOAD_THREADS 16
#define WORKERS_STOP_TIME dur_s(5)
#define START_SLICE \
	dur_s(1) /* for the watchdog, while the start holds up nobody: it opens files and spools */

struct start_call {
	const struct options *o;
	struct fiber *fiber; /* worker 0's; NULL when it is not running */
	_Atomic bool is_done;
	int signal; /* that came meanwhile, or 0 */
	int rc;
	struct err err;
};

static void start_fiber(void *arg)
{
	struct start_call *c = arg;
	c->fiber = fiber_self();
	c->rc = c->o->is_validating ? service_validate(c->o) : service_start(c->o);
	if (c->rc != 0)
		c->err = err_take();
	c->fiber = NULL;
	atomic_store(&c->is_done, true);
	kill(getpid(), SIGUSR1); /* blocked everywhere: it wakes main_start */
}

/* In worker 0, which the fiber belongs to. */
static void start_cancel(void *arg)
{
	struct start_call *c = arg;
	if (c->fiber != NULL)
		fiber_cancel(c->fiber);
}

static void stop_fiber(void *arg)
{
	service_stop();
}
static void reload_fiber(void *arg)
{
	service_reload();
}

static int main_set_log_filter(void)
{
	const char *filter = getenv("CIRRUS_LOG");
	if (filter == NULL)
		filter = getenv("KUMOD_LOG");
	return filter != NULL ? log_set_filter(str_of(filter)) : 0;
}

/** As many file descriptors as the system lets us have. */
static void main_raise_limits(void)
{
	struct rlimit r;
	if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < r.rlim_max) {
		r.rlim_cur = r.rlim_max;
		if (setrlimit(RLIMIT_NOFILE, &r) != 0)
			log_warn("kumod", "the limit of open files stays where it is");
	}
}

/** Runs the start, which a policy or a large spool may make long: SIGTERM and SIGINT end it. */
static void main_start(struct start_call *c, const sigset_t *set)
{
	worker_start_fiber(worker_get(0), "main", start_fiber, c);
	while (!atomic_load(&c->is_done)) {
		int sig = sigwaitinfo(set, NULL);
		if ((sig != SIGTERM && sig != SIGINT) || c->signal != 0)
			continue;
		c->signal = sig;
		worker_post(worker_get(0), start_cancel, c);
	}
}

/** Until the process is to end: the signal that said so. */
static int main_wait_for_stop(const sigset_t *set)
{
	for (;;) {
		int sig = sigwaitinfo(set, NULL);
		if (sig == SIGHUP)
			worker_run(reload_fiber, NULL);
		else if (sig == SIGTERM || sig == SIGINT)
			return sig;
	}
}

static int main_fail(const char *text)
{
	fprintf(stderr, "Error: %s\n", text);
	return 1;
}

int main(int argc, char **argv)
{
	struct options o;
	sigset_t set;

	options_parse(&o, argc, argv);
	log_set_thread_name("main");
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR1); /* the start is done */
	pthread_sigmask(SIG_BLOCK, &set, NULL);

	if (main_set_log_filter() != 0 || fault_init_from_env() != 0 || bind_check_parallelism() != 0)
		return main_fail(err_text());
	if (o.user != NULL && privilege_become(o.user) != 0)
		return main_fail(err_text());
	if (!o.is_validating && geteuid() == 0)
		log_warn("kumod", "running as root: start with --user NAME to drop privileges");
	main_raise_limits();
	worker_set_watchdog(START_SLICE);
	workers_start(bind_available_parallelism());
	offload_start(OFFLOAD_THREADS);

	struct start_call c = {.o = &o};
	main_start(&c, &set);
	if (c.rc != 0) {
		str_t why = str_of(c.err.text), lead = STR("Initialization raised an error: ");
		log_error("kumod", "problem initializing: " STR_FMT,
			  STR_ARG(str_starts(why, lead) ? str_skip(why, lead.n) : why));
	}
	if (!o.is_validating && (c.rc == 0 || c.signal != 0)) {
		/* Not inside the call: what is not logged is not evaluated. */
		int sig = c.signal != 0 ? c.signal : main_wait_for_stop(&set);
		log_info("kumod", "received %s, stopping", strsignal(sig));
	}
	if (!o.is_validating)
		worker_run(stop_fiber, NULL);
	workers_stop(mono_after(WORKERS_STOP_TIME));
	policy_stop(); /* until now a fiber may have been in a handler */
	if (!o.is_validating)
		service_close();
	offload_stop();
	if (c.rc != 0) {
		main_fail(c.err.text);
		err_fini(&c.err);
		return 1;
	}
	if (!o.is_validating)
		log_info("kumod", "stopped in good order");
	return 0;
}
