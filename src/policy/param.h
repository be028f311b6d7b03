/* param.h - parameter tables. One schema gives parsing, types, defaults, the errors and the
 * documentation of a table that a policy passes to a make_/start_/configure_ function. An error
 * reads `deserialize error: WHY, while processing {json}`; the binding raises it with file and line. */
#pragma once

#include "base/clock.h"
#include "net/addr.h"

#include <jansson.h>
#include <lua.h>

enum param_type {
	PT_STR,		/* char *; NULL when optional and unset */
	PT_BOOL,	/* bool */
	PT_INT,		/* int64_t, within [min, max] */
	PT_BYTES,	/* uint64_t; an integer */
	PT_DUR,		/* dur_t; seconds as a number, or text for dur_parse. Unset and optional: ns == -1 */
	PT_ENUM,	/* int: index into words */
	PT_CIDRS,	/* struct cidr_set */
	PT_STRS,	/* struct param_strs */
	PT_IP,		/* struct net_addr, port 0; len 0 when unset */
	PT_JSON,	/* json_t *: any value; NULL when unset */
	PT_CUSTOM,	/* whatever `parse` makes of the JSON form */
	PT_UNSUPPORTED, /* known, but not honoured by this version: given, it is refused by name */
};

struct param_strs {
	char **v;
	size_t n;
};

struct param {
	const char *name; /* NULL ends the array */
	enum param_type type;
	size_t offset;
	bool is_required;
	const char *def; /* default as text, run through the same parser at boot; NULL: zero / unset */
	const char *doc; /* a sentence for the reference and the editor stubs */
	const char *const *words; /* PT_ENUM, NULL-terminated */
	int64_t min, max;	  /* PT_INT; both 0: any */
	/* PT_CUSTOM. parse: -1 ERR_INVALID with the WHY text. def, if any, is JSON text. fini may be NULL. */
	int (*parse)(const json_t *value, void *field);
	void (*fini)(void *field);
	/* For the object's snapshot; NULL: the input as given. */
	void (*dump)(const void *field, json_t **out);
};

/* Declaring fields; a wrong field type does not compile. Use: PARAM_STR(struct_name, field, .def = "...",
 * .doc = "...") */
#define PARAM_F_(strct, field, ctype, ptype, ...)                                         \
	{                                                                                 \
		.name = #field, .type = (ptype),                                          \
		.offset = offsetof(struct strct, field) +                                 \
			  0 * sizeof(_Generic(&((struct strct *)0)->field, ctype * : 1)), \
		__VA_ARGS__                                                               \
	}
#define PARAM_STR(s, f, ...) PARAM_F_(s, f, char *, PT_STR, __VA_ARGS__)
#define PARAM_BOOL(s, f, ...) PARAM_F_(s, f, bool, PT_BOOL, __VA_ARGS__)
#define PARAM_INT(s, f, ...) PARAM_F_(s, f, int64_t, PT_INT, __VA_ARGS__)
#define PARAM_BYTES(s, f, ...) PARAM_F_(s, f, uint64_t, PT_BYTES, __VA_ARGS__)
#define PARAM_DUR(s, f, ...) PARAM_F_(s, f, dur_t, PT_DUR, __VA_ARGS__)
#define PARAM_ENUM(s, f, w, ...) PARAM_F_(s, f, int, PT_ENUM, .words = (w), __VA_ARGS__)
#define PARAM_CIDRS(s, f, ...) PARAM_F_(s, f, struct cidr_set, PT_CIDRS, __VA_ARGS__)
#define PARAM_STRS(s, f, ...) PARAM_F_(s, f, struct param_strs, PT_STRS, __VA_ARGS__)
#define PARAM_IP(s, f, ...) PARAM_F_(s, f, struct net_addr, PT_IP, __VA_ARGS__)
#define PARAM_JSON(s, f, ...) PARAM_F_(s, f, json_t *, PT_JSON, __VA_ARGS__)
#define PARAM_CUSTOM(s, f, ...)                                                             \
	{                                                                                   \
		.name = #f, .type = PT_CUSTOM, .offset = offsetof(struct s, f), __VA_ARGS__ \
	}
#define PARAM_UNSUPPORTED(n)                       \
	{                                          \
		.name = #n, .type = PT_UNSUPPORTED \
	}

struct param_schema {
	const char *type_name; /* "QueueConfig": shown by tostring and in errors */
	const struct param *params;
	size_t size;
	/* Optional cross-field check after parsing; -1 ERR_INVALID with the WHY text. */
	int (*check)(void *obj);
};

/** Every default of every schema, parsed once at boot: panics on a default that does not parse. */
void param_schema_register(const struct param_schema *s);
/** The i-th registered schema, NULL past the last: what the reference is printed from. */
const struct param_schema *param_schema_at(size_t i);
/** Candidates and near misses in the error: "unknown field `lisen`, expected one of `a`, `b` (did you mean
 * `listen`?)". out is zeroed first; released by param_fini. -1 ERR_INVALID, out needs no fini then. */
MUST_CHECK int param_parse_json(const struct param_schema *s, const json_t *table, void *out);
MUST_CHECK int param_parse_lua(const struct param_schema *s, lua_State *L, int idx, void *out);
void param_fini(const struct param_schema *s, void *obj);
/** "unknown variant `X`, expected one of `A`, `B`" for custom parsers. */
void param_err_variant(const char *given, const char *const *words);

/* --- objects: the immutable results of make_* functions, as a policy and the C side share them --- */
struct param_object {
	_Atomic uint32_t refs;
	const struct param_schema *schema;
	json_t *snapshot; /* what pairs/index/# see */
	_Alignas(16) char data[];
};
/** Parses and wraps. NULL with the error set. */
MUST_CHECK struct param_object *param_object_from_lua(const struct param_schema *s, lua_State *L, int idx);
MUST_CHECK struct param_object *param_object_from_json(const struct param_schema *s, const json_t *table);
/** For the parse function of a field that is a table itself: the error is the WHY alone, behind the field's
 * name (NULL: without one). */
MUST_CHECK struct param_object *param_object_from_nested(const struct param_schema *s, const json_t *table,
							 const char *field);
struct param_object *param_object_ref(struct param_object *o);
void param_object_unref(struct param_object *o);
void param_object_push(lua_State *L, struct param_object *o); /* userdata; takes its own reference */
/** The object at idx if it is of this schema, a new reference; NULL (ERR_INVALID) otherwise.
 * Raises nothing. */
MUST_CHECK struct param_object *param_object_at(lua_State *L, int idx, const struct param_schema *s);
