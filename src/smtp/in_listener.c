/* in_listener.c - an SMTP listener: opened with all the certificates that its parameters name, and ended in
 * good order; and what all listeners share: the gate, the memory for messages that are being received, the
 * metrics.
 *
 * When it stops, sessions that wait for their client are cancelled and say 421; those that work on a message
 * finish it first. */
#include "smtp/in_impl.h"

#include <pthread.h>
#include <sys/resource.h>

#define IN_CANCEL_TIMEOUT dur_s(5) /* for cancelled fibers to return */

/* --- shared --- */

static _Atomic(const char *(*)(void)) in_gate;
static _Atomic uint64_t in_memory_used, in_memory_max = UINT64_C(256) << 20;

void in_set_gate(const char *(*why_not)(void))
{
	atomic_store(&in_gate, why_not);
}

const char *in_why_not(void)
{
	const char *(*why_not)(void) = atomic_load_explicit(&in_gate, memory_order_acquire);
	return why_not != NULL ? why_not() : NULL;
}

void in_set_body_memory(uint64_t n_bytes)
{
	atomic_store(&in_memory_max, n_bytes);
}
uint64_t in_body_memory(void)
{
	return atomic_load_explicit(&in_memory_used, memory_order_relaxed);
}

bool in_memory_take(size_t n_bytes)
{
	uint64_t used = atomic_fetch_add_explicit(&in_memory_used, n_bytes, memory_order_relaxed) + n_bytes;
	if (used <= atomic_load_explicit(&in_memory_max, memory_order_relaxed))
		return true;
	in_memory_give(n_bytes);
	return false;
}

void in_memory_give(size_t n_bytes)
{
	atomic_fetch_sub_explicit(&in_memory_used, n_bytes, memory_order_relaxed);
}

static struct in_metrics in_metrics_all;

static struct metric_series *in_duration(const char *name, const char *help)
{
	return metric_get(metric_declare(METRIC_HISTOGRAM, name, help, NULL, NULL, 0), NULL);
}

static void in_metrics_make(void)
{
	static const char *const label[] = {"service", NULL};
	str_t service = STR("esmtp_listener");
	in_metrics_all = (struct in_metrics){
		.connections = metric_get(metric_declare(METRIC_GAUGE, "connection_count",
							 "number of active connections", label, NULL, 0),
					  &service),
		.connections_total = metric_get(metric_declare(METRIC_COUNTER, "total_connection_count",
							       "total number of active connections ever made",
							       label, NULL, 0),
						&service),
		.denied = metric_get(metric_declare(METRIC_COUNTER, "total_connections_denied",
						    "total number of connections rejected due to load "
						    "shedding or concurrency limits",
						    label, NULL, 0),
				     &service),
		.received =
			metric_get(metric_declare(METRIC_COUNTER, "total_messages_received",
						  "total number of messages ever received", label, NULL, 0),
				   &service),
		.rejections =
			metric_get(metric_declare(METRIC_COUNTER, "smtp_server_rejections",
						  "number of Rejection records logged by the smtp server",
						  label, NULL, 0),
				   &service),
		.read_duration = in_duration("smtpsrv_read_data_duration",
					     "how long it takes to receive the DATA portion"),
		.process_duration = in_duration("smtpsrv_process_data_duration",
						"how long it takes to process the DATA portion and enqueue"),
		.transaction_duration = in_duration("smtpsrv_transaction_duration",
						    "how long an incoming SMTP transaction takes"),
	};
}

const struct in_metrics *in_metrics(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, in_metrics_make);
	return &in_metrics_all;
}

/* --- opening --- */

static void in_listener_free(struct in_listener *l)
{
	listener_free(l->listener);
	for (size_t i = 0; i < l->n_tls; i++)
		tls_source_unref(l->tls[i]);
	free(l->tls);
	crowd_free(l->crowd);
	param_object_unref(l->params_object);
	free(l->machine_hostname);
	free(l);
}

static struct in_listener *in_listener_new(struct param_object *params)
{
	struct in_listener *l = xnew(struct in_listener);
	l->params_object = param_object_ref(params);
	l->params = (const void *)params->data;
	l->machine_hostname = net_machine_hostname();
	l->crowd = crowd_new();
	return l;
}

struct in_tls_loading {
	struct in_listener *l;
	mono_t deadline;
};

static int in_listener_load_one(const struct in_settings *set, void *arg)
{
	struct in_tls_loading *t = arg;
	struct in_listener *l = t->l;
	struct tls_source *source = in_tls_get(l, set, t->deadline);
	if (source == NULL)
		return -1;
	l->tls = xreallocarray(l->tls, l->n_tls + 1, sizeof(*l->tls));
	l->tls[l->n_tls++] = source;
	return 0;
}

/* What is wrong with a certificate is an error of the line of the policy that names it. */
static int in_listener_load_tls(struct in_listener *l, mono_t deadline)
{
	struct in_tls_loading t = {.l = l, .deadline = deadline};
	return in_settings_each(l->params, l->machine_hostname, in_listener_load_one, &t);
}

int in_listener_check(struct param_object *params, mono_t deadline)
{
	struct in_listener *l = in_listener_new(params);
	int rc = in_listener_load_tls(l, deadline);
	in_listener_free(l);
	return rc;
}

/* Each denied connection still takes a descriptor, for a moment: beyond three quarters of them, the kernel
 * may hold the rest. */
static void in_listener_limit(struct in_listener *l)
{
	struct rlimit r;
	if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur != RLIM_INFINITY)
		listener_set_max_connections(l->listener, r.rlim_cur / 4 * 3);
}

static struct listener *in_listener_bind(struct in_listener *l)
{
	const struct listen_param *at = &l->params->listen;
	if (at->unix_path != NULL)
		return listener_open_unix(at->unix_path, l->params->listen_mode, "smtp", in_session_main, l);
	if (at->fd_name != NULL)
		return listener_open_inherited(at->fd_name, "smtp", in_session_main, l);
	return listener_open(&at->addr, "smtp", in_session_main, l);
}

struct in_listener *in_listener_open(struct param_object *params, mono_t deadline)
{
	struct in_listener *l = in_listener_new(params);
	if (in_listener_load_tls(l, deadline) != 0)
		goto fail;
	l->listener = in_listener_bind(l);
	if (l->listener == NULL)
		goto fail;
	in_listener_limit(l);
	in_metrics();
	log_info("kumod", "smtp listener on %s", in_listener_name(l));
	for (size_t i = 0; i < l->n_tls; i++) {
		tls_source_set_name(l->tls[i], in_listener_name(l));
		tls_source_warn(l->tls[i]);
	}
	return l;
fail:
	in_listener_free(l);
	return NULL;
}

const char *in_listener_name(const struct in_listener *l)
{
	return listener_name(l->listener);
}

void in_listener_start(struct in_listener *l)
{
	listener_start(l->listener);
}

/* --- ending --- */

void in_listener_stop(struct in_listener *l)
{
	if (crowd_is_stopping(l->crowd))
		return;
	crowd_stop(l->crowd);
	listener_stop(l->listener);
}

void in_listener_close(struct in_listener *l, mono_t deadline)
{
	bool is_gone = listener_join(l->listener, false, deadline) == 0;
	fiber_shield_begin(); /* from here on every wait is short, and l must not be left behind */
	if (!is_gone) {
		err_clear();
		log_warn("kumod", "smtp listener on %s: cancelling %zu connections", in_listener_name(l),
			 listener_n_connections(l->listener));
		is_gone = listener_join(l->listener, true, mono_after(IN_CANCEL_TIMEOUT)) == 0;
	}
	if (crowd_join(l->crowd, mono_after(IN_CANCEL_TIMEOUT)) != 0)
		is_gone = false;
	fiber_shield_end();
	if (is_gone) {
		in_listener_free(l);
		return;
	}
	/* Whoever is left points at l: it stays. */
	log_error("kumod", "smtp listener on %s did not end: %s", in_listener_name(l), err_text());
	err_clear();
}
