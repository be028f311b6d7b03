/* params.c - the parameters of kumo.configure_local_logs, with what the param layer cannot say: per_record is
 * a map of strict tables keyed by record type. Templates are compiled here, so that a mistake in one is an
 * error of configuration. */
#include "record/record_impl.h"

#include "base/alloc.h"
#include "base/err.h"

#include <stdlib.h>

static const char *const record_names[] = {
	[RECORD_RECEPTION] = "Reception",
	[RECORD_DELIVERY] = "Delivery",
	[RECORD_BOUNCE] = "Bounce",
	[RECORD_TRANSIENT_FAILURE] = "TransientFailure",
	[RECORD_EXPIRATION] = "Expiration",
	[RECORD_ADMIN_BOUNCE] = "AdminBounce",
	[RECORD_OOB] = "OOB",
	[RECORD_FEEDBACK] = "Feedback",
	[RECORD_REJECTION] = "Rejection",
	[RECORD_ADMIN_REBIND] = "AdminRebind",
	[RECORD_DEFERRED_INJECTION_REBIND] = "DeferredInjectionRebind",
	[RECORD_DELAYED] = "Delayed",
	[RECORD_XFER_OUT] = "XferOut",
	[RECORD_XFER_IN] = "XferIn",
	[RECORD_TYPE_COUNT] = "Any",
	NULL,
};
_Static_assert(ARRAY_SIZE(record_names) == RECORD_TYPE_COUNT + 2, "a name per record type, Any and the end");

const char *record_type_name(enum record_type t)
{
	return record_names[t];
}

/* --- per_record --- */

static int log_record_params_check(void *obj)
{
	struct log_record_params *p = obj;
	if (p->template == NULL)
		return 0;
	p->compiled = template_compile("per_record template", str_of(p->template), false);
	return p->compiled != NULL ? 0 : -1;
}

static const struct param log_record_param_list[] = {
	PARAM_BOOL(log_record_params, enable, .def = "true",
		   .doc = "Whether records of this type are logged."),
	PARAM_STR(log_record_params, suffix, .doc = "Appended to the names of the segment files."),
	PARAM_STR(log_record_params, log_dir, .doc = "Directory for this type, instead of the logger's."),
	PARAM_STR(log_record_params, segment_header, .doc = "Text at the start of each segment file."),
	PARAM_STR(log_record_params, template,
		  .doc = "Template for the log line, instead of the JSON object."),
	{0},
};

static const struct param_schema log_record_params_schema = {
	.type_name = "LogRecordParams",
	.params = log_record_param_list,
	.size = sizeof(struct log_record_params),
	.check = log_record_params_check,
};

static void log_record_params_free(struct log_record_params *p)
{
	if (p == NULL)
		return;
	template_free(p->compiled);
	param_fini(&log_record_params_schema, p);
	free(p);
}

static void per_record_fini(void *field)
{
	struct log_record_params **entry = field;
	for (size_t i = 0; i <= RECORD_TYPE_COUNT; i++) {
		log_record_params_free(entry[i]);
		entry[i] = NULL;
	}
}

/* The error of an inner table becomes the WHY of the outer one, which shows its own input. */
static void per_record_wrap_error(const char *key)
{
	struct err e = err_take();
	str_t why = str_of(e.text);
	if (str_starts(why, STR("deserialize error: ")))
		why = str_skip(why, strlen("deserialize error: "));
	ptrdiff_t tail = str_find(why, STR(", while processing "));
	if (tail >= 0)
		why = str_head(why, (size_t)tail);
	err_set(ERR_INVALID, "per_record.%s: " STR_FMT, key, STR_ARG(why));
	err_fini(&e);
}

static int per_record_parse(const json_t *value, void *field)
{
	struct log_record_params **entry = field;
	/* An empty table is an array as well as an object. */
	if (!json_is_object(value) && !(json_is_array(value) && json_array_size(value) == 0)) {
		err_set(ERR_INVALID, "invalid type: per_record, expected a map of record types");
		return -1;
	}
	const char *key;
	json_t *v;
	json_object_foreach((json_t *)(uintptr_t)value, key, v)
	{
		size_t t = 0;
		while (t <= RECORD_TYPE_COUNT && strcmp(record_names[t], key) != 0)
			t++;
		if (t > RECORD_TYPE_COUNT) {
			param_err_variant(key, record_names);
			goto failed;
		}
		struct log_record_params *p = xnew(struct log_record_params);
		if (param_parse_json(&log_record_params_schema, v, p) != 0) {
			free(p);
			per_record_wrap_error(key);
			goto failed;
		}
		entry[t] = p;
	}
	return 0;
failed:
	per_record_fini(field);
	return -1;
}

const struct log_record_params *local_logs_entry(const struct local_logs_params *p, enum record_type t)
{
	return p->per_record[t] != NULL ? p->per_record[t] : p->per_record[RECORD_TYPE_COUNT];
}

static void local_logs_route(const struct local_logs_params *p, enum record_type t, struct logger_route *r)
{
	const struct log_record_params *e = local_logs_entry(p, t);
	*r = (struct logger_route){
		.is_enabled = e == NULL || e->enable,
		.dir = e != NULL && e->log_dir != NULL ? e->log_dir : p->log_dir,
		.suffix = e != NULL && e->suffix != NULL ? e->suffix : "",
		.header = e != NULL ? str_of(e->segment_header) : STR_NULL,
	};
}

void local_logs_spec(const struct local_logs_params *p, struct logger_spec *spec)
{
	*spec = (struct logger_spec){
		.dir = p->log_dir,
		.prefix = "",
		.max_bytes = p->max_file_size,
		.max_age = p->max_segment_duration,
		.level = (int)p->compression_level,
		.back_pressure = (size_t)p->back_pressure,
	};
	for (int t = 0; t < RECORD_TYPE_COUNT; t++)
		local_logs_route(p, (enum record_type)t, &spec->route[t]);
}

/* --- the table --- */

static const struct param local_logs_param_list[] = {
	PARAM_STR(local_logs_params, log_dir, .is_required = true, .doc = "Directory of the segment files."),
	PARAM_BYTES(local_logs_params, max_file_size, .def = "1000000000",
		    .doc = "Bytes of uncompressed records after which a segment is finished."),
	PARAM_DUR(local_logs_params, max_segment_duration,
		  .doc = "Time after which a segment is finished; unlimited when unset."),
	PARAM_INT(local_logs_params, compression_level, .def = "0", .max = 22,
		  .doc = "zstd level from 1 (cheapest) on; 0 is zstd's own default."),
	PARAM_INT(local_logs_params, back_pressure, .def = "128000", .min = 1, .max = INT32_MAX,
		  .doc = "How many records may wait to be written before those who log wait too."),
	PARAM_STRS(local_logs_params, meta, .doc = "Metadata to log: names, or prefixes that end in *."),
	PARAM_STRS(local_logs_params, headers,
		   .doc = "Message headers to log: names in any case, or prefixes that end in *."),
	PARAM_CUSTOM(local_logs_params, per_record, .parse = per_record_parse, .fini = per_record_fini,
		     .doc = "By record type, or Any: enable, suffix, log_dir, segment_header, template."),
	PARAM_STR(local_logs_params, filter_event,
		  .doc = "Event that decides, given the message, whether to log; true keeps."),
	PARAM_CUSTOM(local_logs_params, min_free_space, .parse = disk_limit_param_parse,
		     .fini = disk_limit_param_fini, .def = "\"10%\"",
		     .doc = "Free space under which new mail is refused, in percent or bytes."),
	PARAM_CUSTOM(local_logs_params, min_free_inodes, .parse = disk_limit_param_parse,
		     .fini = disk_limit_param_fini, .def = "\"10%\"",
		     .doc = "Free inodes under which new mail is refused, in percent or as a count."),
	{0},
};

static int local_logs_check(void *obj)
{
	struct local_logs_params *p = obj;
	if (p->max_file_size == 0) {
		err_set(ERR_INVALID, "invalid value: max_file_size 0, expected at least 1");
		return -1;
	}
	for (size_t i = 0; i <= RECORD_TYPE_COUNT; i++) {
		const struct log_record_params *e = p->per_record[i];
		if (e != NULL && e->suffix != NULL && strchr(e->suffix, '/') != NULL) {
			err_set(ERR_INVALID,
				"invalid value: per_record suffix \"%s\", expected a part of a file name",
				e->suffix);
			return -1;
		}
	}
	return 0;
}

const struct param_schema record_local_logs_schema = {
	.type_name = "LogFileParams",
	.params = local_logs_param_list,
	.size = sizeof(struct local_logs_params),
	.check = local_logs_check,
};
