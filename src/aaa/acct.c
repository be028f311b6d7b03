/* acct.c - the accounting log: rendering its two kinds of lines, and the logger of src/record
 * that writes them. The four wishes of the configuration (logins and decisions, good and bad) are
 * the logger's kinds of lines. The fields stand in the order in which existing readers know them.
 *
 * The log is configured in init, before there is traffic, and stays until acct_log_stop: readers need no
 * lock. */
#include "aaa/acct.h"

#include "base/err.h"
#include "base/log.h"
#include "base/metric.h"
#include "fiber/offload.h"
#include "record/disk.h"
#include "record/logger.h"

#include <pthread.h>
#include <stdatomic.h>

#define ACCT_PATIENCE dur_s(10) /* for room in the log */

enum acct_kind { ACCT_LOGIN_OK, ACCT_LOGIN_FAILED, ACCT_ALLOWED, ACCT_DENIED, ACCT_KIND_COUNT };

struct acct_log_params {
	char *log_dir;
	uint64_t max_file_size;
	dur_t max_segment_duration; /* ns -1: unlimited */
	int64_t compression_level;
	int64_t back_pressure; /* lines */
	bool log_authn_ok, log_authn_fail, log_authz_allow, log_authz_deny;
	char *min_free_space, *min_free_inodes;
};

static struct {
	_Atomic(struct logger *) logger;
	struct metric_series *lost;
	pthread_mutex_t lock; /* of what follows */
	mono_t complained;
	uint64_t n_silent;
} acct = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* --- configuration --- */

static const struct param acct_log_list[] = {
	PARAM_STR(acct_log_params, log_dir, .is_required = true, .doc = "Directory of the segment files."),
	PARAM_BYTES(acct_log_params, max_file_size, .def = "1000000000",
		    .doc = "Bytes of uncompressed lines after which a segment is finished."),
	PARAM_DUR(acct_log_params, max_segment_duration,
		  .doc = "Time after which a segment is finished; unlimited when unset."),
	PARAM_INT(acct_log_params, compression_level, .def = "0", .max = 22,
		  .doc = "zstd level from 1 (cheapest) on; 0 is zstd's own default."),
	PARAM_INT(acct_log_params, back_pressure, .def = "128000", .min = 1, .max = INT32_MAX,
		  .doc = "How many lines may wait to be written before requests wait too."),
	PARAM_BOOL(acct_log_params, log_authn_ok, .def = "true", .doc = "Log logins that succeed."),
	PARAM_BOOL(acct_log_params, log_authn_fail, .def = "true", .doc = "Log logins that fail."),
	PARAM_BOOL(acct_log_params, log_authz_allow, .def = "true", .doc = "Log access that is allowed."),
	PARAM_BOOL(acct_log_params, log_authz_deny, .def = "true", .doc = "Log access that is denied."),
	PARAM_CUSTOM(acct_log_params, min_free_space, .parse = disk_limit_param_parse,
		     .fini = disk_limit_param_fini, .def = "\"10%\"",
		     .doc = "Free space under which new mail is refused, in percent or bytes."),
	PARAM_CUSTOM(acct_log_params, min_free_inodes, .parse = disk_limit_param_parse,
		     .fini = disk_limit_param_fini, .def = "\"10%\"",
		     .doc = "Free inodes under which new mail is refused, in percent or as a count."),
	{0},
};

static int acct_log_check(void *obj)
{
	const struct acct_log_params *p = obj;
	if (p->max_file_size != 0)
		return 0;
	err_set(ERR_INVALID, "invalid value: max_file_size 0, expected at least 1");
	return -1;
}

const struct param_schema acct_log_schema = {
	.type_name = "AcctLogParams",
	.params = acct_log_list,
	.size = sizeof(struct acct_log_params),
	.check = acct_log_check,
};

static struct logger *acct_start(struct param_object *params, const struct acct_log_params *p)
{
	struct logger_spec spec = {
		.dir = p->log_dir,
		.prefix = "acct-",
		.max_bytes = p->max_file_size,
		.max_age = p->max_segment_duration,
		.level = (int)p->compression_level,
		.back_pressure = (size_t)p->back_pressure,
	};
	const bool is_wanted[] = {p->log_authn_ok, p->log_authn_fail, p->log_authz_allow, p->log_authz_deny};
	for (size_t i = 0; i < ACCT_KIND_COUNT; i++)
		spec.route[i] = (struct logger_route){
			.is_enabled = is_wanted[i], .dir = p->log_dir, .suffix = "", .header = STR_NULL};
	return logger_start(params, &spec);
}

int acct_log_configure(struct param_object *params, bool is_validating)
{
	const struct acct_log_params *p = (const struct acct_log_params *)params->data;
	if (atomic_load(&acct.logger) != NULL) {
		err_set(ERR_EXISTS, "the accounting log is configured already; there can be only one");
		return -1;
	}
	if (logger_prepare_dir(p->log_dir, is_validating) != 0)
		return -1;
	if (is_validating)
		return 0;
	struct logger *l = acct_start(params, p);
	if (l == NULL)
		return -1;
	logger_monitor_dir(p->log_dir, p->min_free_space, p->min_free_inodes);
	acct.lost = metric_get(metric_declare(METRIC_COUNTER, "acct_record_lost_count",
					      "accounting records that were not logged because of an error",
					      NULL, NULL, 0),
			       NULL);
	atomic_store_explicit(&acct.logger, l, memory_order_release);
	return 0;
}

static int acct_stop_logger(void *arg)
{
	logger_stop(arg);
	return 0;
}

void acct_log_stop(void)
{
	struct logger *l = atomic_exchange(&acct.logger, NULL);
	if (l == NULL)
		return;
	if (offload_run(acct_stop_logger, l, MONO_NEVER) != 0) {
		err_clear(); /* cancelled before it ran, or the threads are gone: here, then */
		logger_stop(l);
	}
	metric_series_unref(acct.lost);
	acct.lost = NULL;
}

/* --- lines --- */

/* Consumes the error in the slot; a line a second at most. */
static void acct_complain(void)
{
	mono_t now = mono_now();
	pthread_mutex_lock(&acct.lock);
	bool is_due = acct.complained.ns == 0 || mono_sub(now, acct.complained).ns >= NS_PER_S;
	uint64_t n_silent = acct.n_silent;
	acct.n_silent = is_due ? 0 : n_silent + 1;
	if (is_due)
		acct.complained = now;
	pthread_mutex_unlock(&acct.lock);
	if (is_due)
		log_error("kumod::aaa", "an accounting record is lost: %s (%llu more since the last line)",
			  err_text(), (unsigned long long)n_silent);
	err_clear();
}

/* The logger when it wants that kind. */
static struct logger *acct_logger(enum acct_kind kind)
{
	struct logger *l = atomic_load_explicit(&acct.logger, memory_order_acquire);
	return l != NULL && logger_is_enabled(l, kind) ? l : NULL;
}

static void acct_begin(struct json_out *j, const char *type)
{
	struct buf at = BUF_INIT;
	wall_fmt_rfc3339(wall_now(), 9, &at);
	json_obj_begin(j);
	json_kv_str(j, STR("type"), str_of(type));
	json_kv_str(j, STR("timestamp"), buf_str(&at));
	buf_fini(&at);
}

static void acct_end(struct logger *l, enum acct_kind kind, struct json_out *j, mono_t deadline)
{
	json_obj_end(j);
	buf_add_c(j->b, '\n');
	mono_t bound = mono_min(deadline, mono_after(ACCT_PATIENCE));
	if (logger_submit(l, kind, buf_str(j->b), bound) == 0)
		return;
	metric_inc(acct.lost);
	acct_complain();
}

void acct_log_login(const struct auth_info *who, str_t identity, enum auth_context context, bool is_success,
		    mono_t deadline)
{
	enum acct_kind kind = is_success ? ACCT_LOGIN_OK : ACCT_LOGIN_FAILED;
	struct logger *l = acct_logger(kind);
	if (l == NULL)
		return;
	struct buf line = BUF_INIT;
	struct json_out j = json_out_to(&line);
	acct_begin(&j, "Authentication");
	json_key(&j, STR("attempted_identity"));
	json_obj_begin(&j);
	json_kv_str(&j, STR("identity"), identity);
	json_kv_str(&j, STR("context"), str_of(auth_context_name(context)));
	json_obj_end(&j);
	json_kv_bool(&j, STR("success"), is_success);
	json_key(&j, STR("auth_info"));
	auth_info_write(who, &j);
	acct_end(l, kind, &j, deadline);
	buf_fini(&line);
}

static void acct_write_decision(struct json_out *j, const struct resource *what,
				const struct access_result *r)
{
	json_kv_str(j, STR("access"), r->is_allowed ? STR("Allow") : STR("Deny"));
	json_key(j, STR("matching_resource"));
	if (r->rule != NULL)
		json_str(j, what->candidate[r->n_considered]);
	else
		json_nil(j);
	json_key(j, STR("rule"));
	if (r->rule != NULL)
		json_raw(j, r->rule->json);
	else
		json_nil(j);
}

void acct_log_access(const struct resource *what, const struct auth_info *who, str_t privilege,
		     const struct access_result *r, mono_t deadline)
{
	enum acct_kind kind = r->is_allowed ? ACCT_ALLOWED : ACCT_DENIED;
	struct logger *l = acct_logger(kind);
	if (l == NULL)
		return;
	struct buf line = BUF_INIT;
	struct json_out j = json_out_to(&line);
	acct_begin(&j, "Authorization");
	json_kv_str(&j, STR("target_resource"), what->candidate[0]);
	json_kv_str(&j, STR("privilege"), privilege);
	acct_write_decision(&j, what, r);
	json_key(&j, STR("auth_info"));
	auth_info_write(who, &j);
	json_key(&j, STR("considered_resources"));
	json_arr_begin(&j);
	for (size_t i = 0; i < r->n_considered; i++)
		json_str(&j, what->candidate[i]);
	json_arr_end(&j);
	acct_end(l, kind, &j, deadline);
	buf_fini(&line);
}
