/* service.c - start-up, reload and shutdown. The order matters in both directions: a port answers only when a
 * message it takes can be made durable and queued; on the way down new work ends first, then deliveries, then
 * records, and the spool closes last, because everything before may still tell it something. */
#include "app/service.h"

#include "aaa/access.h"
#include "aaa/acct.h"
#include "aaa/login.h"
#include "api/access_log.h"
#include "api/api.h"
#include "api/authorize.h"
#include "api/idempotency.h"
#include "api/inject.h"
#include "app/privilege.h"
#include "app/version.h"
#include "base/alloc.h"
#include "base/err.h"
#include "base/log.h"
#include "base/path.h"
#include "bind/bind.h"
#include "bind/bind_aaa.h"
#include "bind/bind_extras.h"
#include "bind/bind_http.h"
#include "bind/bind_inject.h"
#include "bind/bind_inject_message.h"
#include "bind/bind_logs.h"
#include "bind/bind_queue.h"
#include "bind/bind_smtp.h"
#include "bind/bind_spool.h"
#include "fiber/memory.h"
#include "fiber/worker.h"
#include "net/dns.h"
#include "net/tls_source.h"
#include "policy/monitor.h"
#include "policy/policy.h"
#include "queue/queue.h"
#include "record/record.h"
#include "smtp/in.h"
#include "smtp/out.h"

#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SERVE_AT_LATEST dur_s(1)
#define SHUTDOWN_TIME dur_s(30)
#define LISTENERS_STOP_TIME \
	dur_s(10) /* of it: a client that stalls leaves deliveries theirs, and they begin no new ones */

static struct {
	struct spool *spool;
	char hostname[HOST_NAME_MAX + 1];
	_Atomic bool is_ready, is_stopping;
	bool is_queue_started;
	bool is_serving; /* the starting worker's */
} service;

/** The gate of everything that takes mail: the first reason that applies. */
static const char *service_why_not(void)
{
	if (atomic_load_explicit(&service.is_stopping, memory_order_relaxed))
		return IN_WHY_STOPPING;
	if (!atomic_load_explicit(&service.is_ready, memory_order_relaxed))
		return IN_WHY_STARTING;
	const char *why = memory_health();
	if (why == NULL)
		why = record_disk_health();
	return why != NULL ? why : spool_health(service.spool);
}

/* The same in the words of check-liveness, where a full disk has a name of its own. */
static const char *service_why_not_alive(void)
{
	const char *why = service_why_not();
	return why != NULL && why == record_disk_health() ? "storage is too full" : why;
}

static int service_load_body(struct message *m, mono_t deadline)
{
	return spool_load_body(service.spool, m, deadline);
}
static int service_load_meta(struct message *m, mono_t deadline)
{
	return spool_load_meta(service.spool, m, deadline);
}
static int service_save(struct message *m, mono_t deadline)
{
	return spool_save(service.spool, m, deadline);
}

static void service_register(void)
{
	bind_register_core();
	bind_register_aaa();
	bind_register_http();
	bind_register_inject();
	bind_register_inject_message();
	bind_register_logs();
	bind_register_queue();
	bind_register_smtp();
	bind_register_extras();
	bind_register_spool();
	api_set_info(CIRRUS_VERSION, bind_available_parallelism());
	api_register_routes();
	api_authorize_register();
	api_inject_register();
	api_set_liveness(service_why_not_alive);
}

/** A handler that is never called is not passed over in silence. */
static void service_warn_of_uncalled_events(void)
{
	static const char *const uncalled[] = {"rebind_message",
					       "requeue_message",
					       "should_enqueue_log_record",
					       "shutdown_logging",
					       "smtp_client_rewrite_delivery_status",
					       "spool_message_enumerated",
					       "throttle_insert_ready_queue",
					       "xfer_message_received"};
	for (size_t i = 0; i < ARRAY_SIZE(uncalled); i++)
		if (policy_has_handler(uncalled[i]))
			log_warn("kumod",
				 "the policy has a handler of the event `%s`, which this version of cirrus "
				 "does "
				 "not call",
				 uncalled[i]);
}

/** What stops the start, also where that is a refusal (kumo.reject), whose code belongs to its text. */
static int service_event_failed(const char *event)
{
	if (err_is(ERR_REJECT)) {
		struct err e = err_take();
		err_set(ERR_LUA, "%d %s", e.code, e.text);
		err_fini(&e);
	}
	err_wrap("Initialization raised an error: call %s callback", event);
	return -1;
}

static int service_run_init(const struct options *o)
{
	struct policy_params p = {
		.file = o->policy, .is_validating = o->is_validating, .version = CIRRUS_VERSION};
	if (policy_start(&p) != 0) {
		err_wrap("Error evaluating policy file \"%s\"", o->policy);
		return -1;
	}
	service_warn_of_uncalled_events();
	if (policy_fire("pre_init", MONO_NEVER) != 0)
		return service_event_failed("pre_init");
	if (policy_fire("init", MONO_NEVER) != 0)
		return service_event_failed("init");
	return 0;
}

/** The directory of the spool `meta`: a Journal keeps metadata with the data, so that one fsync covers both;
 * the directory is made and must be writable all the same, because a policy that names it means it to be. */
static int service_check_meta_spool(const struct spool_definition *d)
{
	if (path_make_dirs(d->path, 0750) != 0) {
		err_wrap("spool `meta`");
		return -1;
	}
	if (access(d->path, W_OK | X_OK) != 0) {
		err_set_sys(errno, "spool `meta`: the directory %s", d->path);
		return -1;
	}
	disk_monitor_add("meta spool", d->path, str_of(d->min_free_space), str_of(d->min_free_inodes));
	return 0;
}

static int service_open_spool(void)
{
	const struct spool_definition *data = bind_spool_find("data"), *meta = bind_spool_find("meta");
	if (data == NULL) {
		err_set(ERR_INVALID, "No spools have been defined: kumo.define_spool "
				     "{ name = 'data', ... } is needed in `init`");
		return -1;
	}
	if (meta != NULL && service_check_meta_spool(meta) != 0)
		return -1;
	if (!data->flush)
		log_warn("kumod",
			 "spool `data` has flush = false: an accepted message can be lost at a power cut");
	struct spool_params p = {.name = str_of(data->name),
				 .path = str_of(data->path),
				 .is_flushed = data->flush,
				 .max_keys = (uint64_t)data->max_idempotency_keys};
	service.spool = spool_open_journal(&p);
	if (service.spool == NULL) {
		err_wrap("spool `data`");
		return -1;
	}
	disk_monitor_add("data spool", data->path, str_of(data->min_free_space),
			 str_of(data->min_free_inodes));
	return 0;
}

static void service_reload_certificates(void *arg)
{
	tls_sources_reload(true, MONO_NEVER);
}

/** The configuration epoch has moved, by whatever caused it. Any thread. */
static void service_on_epoch(void *arg, uint64_t epoch)
{
	worker_start_fiber(worker_get(0), "tls-reload", service_reload_certificates, NULL);
}

static void service_serve(void)
{
	if (service.is_serving)
		return;
	service.is_serving = true;
	http_listeners_start_all();
	smtp_listeners_start_all();
}

/* Who connects during the start is served when it is over. Where reading the spool takes long, it is told
 * before what is waited for. On the worker that starts. */
static void service_serve_fiber(void *arg)
{
	if (fiber_sleep(SERVE_AT_LATEST, MONO_NEVER) != 0)
		err_clear();
	else if (!atomic_load(&service.is_stopping))
		service_serve();
}

int service_start(const struct options *o)
{
	if (gethostname(service.hostname, sizeof(service.hostname) - 1) != 0)
		strcpy(service.hostname, "localhost");
	service_register();
	if (node_id_init() != 0)
		return -1;
	log_info("kumod", "Version is %s", CIRRUS_VERSION);
	log_info("kumod", "NodeId is %s", node_id());
	if (service_run_init(o) != 0)
		return -1;
	if (privilege_drop() != 0 || memory_start() != 0)
		return -1;
	monitor_start();
	if (service_open_spool() != 0)
		return -1;
	record_set_body_loader(service_load_body);
	bind_message_set_loader(service_load_body);
	bind_message_set_saver(service_save);
	policy_set_meta_loader(service_load_meta);
	api_inject_init(
		&(struct api_inject_params){.why_not = service_why_not, .hostname = service.hostname});
	in_set_gate(service_why_not);
	api_set_spool(service.spool);
	idempotency_init(service.spool);
	api_limit_bodies();
	queue_set_smtp_deliverer(&smtp_deliverer);
	in_add_queues();
	queue_start(&(struct queue_params){.spool = service.spool, .hostname = service.hostname});
	service.is_queue_started = true;
	bind_inject_message_set_gate(service_why_not);
	policy_on_epoch(service_on_epoch, NULL);
	worker_start_fiber(worker_self(), "serve", service_serve_fiber, NULL);
	if (queue_recover(MONO_NEVER) != 0) {
		if (!err_is(ERR_CANCELLED))
			return -1;
		log_info("kumod", "the start is given up: %s", err_text());
		err_clear();
		return 0;
	}
	atomic_store(&service.is_ready, true);
	service_serve();
	worker_set_watchdog(dur_ms(WATCHDOG_DEFAULT_MS));
	log_info("kumod", "initialization complete");
	return 0;
}

int service_validate(const struct options *o)
{
	service_register();
	if (service_run_init(o) != 0)
		return -1;
	if (policy_fire("validate_config", MONO_NEVER) != 0)
		return service_event_failed("validate_config");
	if (bind_validation_has_failed()) {
		err_set(ERR_INVALID, "Initialization raised an error: Validation failed");
		return -1;
	}
	return 0;
}

void service_reload(void)
{
	log_info("kumod", "reloading the policy and certificates");
	policy_bump_epoch();
	tls_sources_reload(true, MONO_NEVER);
}

void service_stop(void)
{
	mono_t deadline = mono_after(SHUTDOWN_TIME);
	atomic_store(&service.is_stopping, true);
	monitor_stop(deadline);
	mono_t listeners_deadline = mono_after(LISTENERS_STOP_TIME);
	smtp_listeners_stop_all();
	http_listeners_close_all(listeners_deadline);
	smtp_listeners_close_all(listeners_deadline);
	if (service.is_queue_started)
		queue_stop(deadline);
	dns_stop();
}

void service_close(void)
{
	access_logs_stop();
	acct_log_stop();
	record_stop();
	if (service.is_queue_started)
		queue_free();
	if (service.spool != NULL)
		spool_close(service.spool);
	service.spool = NULL;
	access_reset();
	login_reset();
}
