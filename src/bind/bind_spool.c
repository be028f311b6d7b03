/* bind_spool.c - kumo.define_spool { name, path, kind, flush, min_free_space, min_free_inodes }. The call
 * only records the definition: spools are opened once `init` has returned, when all of them are known. */
#include "bind/bind_spool.h"

#include "base/alloc.h"
#include "base/err.h"
#include "policy/param.h"
#include "policy/policy.h"
#include "record/disk.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

enum spool_kind { SPOOL_LOCAL_DISK, SPOOL_ROCKSDB, SPOOL_JOURNAL };
static const char *const kind_words[] = {"LocalDisk", "RocksDB", "Journal", NULL};

static int define_spool_check(void *obj)
{
	const struct spool_definition *d = obj;
	if (d->kind != SPOOL_JOURNAL) {
		err_set(ERR_INVALID,
			"kind: `%s` is not supported by this version of cirrus, expected `Journal`",
			kind_words[d->kind]);
		return -1;
	}
	if (strcmp(d->name, "data") != 0 && strcmp(d->name, "meta") != 0) {
		err_set(ERR_INVALID, "name: unknown spool `%s`, expected one of `data`, `meta`", d->name);
		return -1;
	}
	return 0;
}

static const struct param define_spool_params[] = {
	PARAM_STR(spool_definition, name, .is_required = true, .doc = "`data` or `meta`."),
	PARAM_STR(spool_definition, path, .is_required = true,
		  .doc = "Directory of the spool; made when missing."),
	PARAM_ENUM(spool_definition, kind, kind_words, .def = "LocalDisk",
		   .doc = "How it is stored; `Journal` in this version."),
	PARAM_BOOL(spool_definition, flush, .def = "true",
		   .doc = "Answer only after the data is on stable storage."),
	PARAM_CUSTOM(spool_definition, min_free_space, .parse = disk_limit_param_parse,
		     .fini = disk_limit_param_fini, .def = "\"10%\"",
		     .doc = "Free space under which no mail is taken: a percentage or bytes."),
	PARAM_CUSTOM(spool_definition, min_free_inodes, .parse = disk_limit_param_parse,
		     .fini = disk_limit_param_fini, .def = "\"10%\"",
		     .doc = "Free inodes under which no mail is taken: a percentage or a number."),
	PARAM_INT(spool_definition, max_idempotency_keys, .min = 1, .max = 100000000, .def = "4000000",
		  .doc = "Idempotency-Keys that are held at a time; "
			 "with more, requests under a new one are answered 503."),
	PARAM_UNSUPPORTED(rocks_params),
	{0}};
static const struct param_schema define_spool_schema = {"Spool", define_spool_params,
							sizeof(struct spool_definition), define_spool_check};

static struct spool_definition *defined[2];

const struct spool_definition *bind_spool_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(defined); i++)
		if (defined[i] != NULL && strcmp(defined[i]->name, name) == 0)
			return defined[i];
	return NULL;
}

static int define_spool(lua_State *L)
{
	struct spool_definition d;
	if (param_parse_lua(&define_spool_schema, L, 1, &d) != 0)
		return -1;
	if (bind_spool_find(d.name) != NULL) {
		err_set(ERR_EXISTS, "spool `%s` has already been defined", d.name);
		param_fini(&define_spool_schema, &d);
		return -1;
	}
	size_t slot = defined[0] == NULL ? 0 : 1;
	defined[slot] = xnew(struct spool_definition);
	*defined[slot] = d;
	return 0;
}

static int kumo_define_spool(lua_State *L)
{
	policy_require_init(L, "kumo.define_spool");
	return define_spool(L) == 0 ? 0 : policy_raise(L);
}

static void open_spool(lua_State *L)
{
	lua_pushcfunction(L, kumo_define_spool);
	lua_setfield(L, -2, "define_spool");
}

void bind_register_spool(void)
{
	param_schema_register(&define_spool_schema);
	policy_add_library(open_spool);
}
