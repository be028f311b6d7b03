/* Every parameter of every binding: its default parses (registering panics otherwise), it is described, and
 * shown. */
#include "ut.h"

#include "base/err.h"
#include "bind/bind.h"
#include "bind/bind_aaa.h"
#include "bind/bind_http.h"
#include "bind/bind_logs.h"
#include "bind/bind_queue.h"
#include "bind/bind_smtp.h"
#include "bind/bind_spool.h"
#include "policy/param.h"

static void test_schemas(void **state)
{
	const struct param_schema *s;
	bind_register_core();
	bind_register_aaa();
	bind_register_http();
	bind_register_logs();
	bind_register_queue();
	bind_register_smtp();
	bind_register_spool();
	size_t n = 0;
	for (; (s = param_schema_at(n)) != NULL; n++) {
		assert_non_null(s->type_name);
		for (const struct param *p = s->params; p->name != NULL; p++) {
			if (p->type != PT_UNSUPPORTED && (p->doc == NULL || p->doc[0] == 0))
				fail_msg("%s.%s is not described", s->type_name, p->name);
			if (p->is_required && p->def != NULL)
				fail_msg("%s.%s is required and has a default", s->type_name, p->name);
			if (p->offset >= s->size && p->type != PT_UNSUPPORTED)
				fail_msg("%s.%s lies outside the struct", s->type_name, p->name);
			for (const struct param *q = s->params; q != p; q++)
				if (strcmp(p->name, q->name) == 0)
					fail_msg("%s.%s is there twice", s->type_name, p->name);
		}
	}
	assert_true(n >= 8);
}

static bool has_required(const struct param_schema *s)
{
	for (const struct param *p = s->params; p->name != NULL; p++)
		if (p->is_required)
			return true;
	return false;
}

/* An empty table gives every field its default, and all of them show. */
static void test_effective_values(void **state)
{
	const struct param_schema *s;
	json_t *empty = json_object();
	for (size_t i = 0; (s = param_schema_at(i)) != NULL; i++) {
		size_t n_fields = 0;
		if (has_required(s))
			continue;
		struct param_object *o = param_object_from_json(s, empty);
		if (o == NULL)
			fail_msg("%s {}: %s", s->type_name, err_text());
		for (const struct param *p = s->params; p->name != NULL; p++) {
			n_fields += p->type != PT_UNSUPPORTED;
			if (p->type != PT_UNSUPPORTED && json_object_get(o->snapshot, p->name) == NULL)
				fail_msg("%s.%s does not show", s->type_name, p->name);
		}
		assert_int_equal(json_object_size(o->snapshot), n_fields);
		param_object_unref(o);
	}
	json_decref(empty);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_schemas),
					   cmocka_unit_test(test_effective_values)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
