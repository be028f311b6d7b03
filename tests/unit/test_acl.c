/* test_acl.c - access control without a policy: criteria against people, lists, maps and the built-in one,
 * the names of resources, AuthInfo, and what an Authorization header may be. */
#include "ut.h"

#include "aaa/acl.h"
#include "aaa/credential.h"
#include "aaa/resource.h"
#include "base/alloc.h"
#include "base/err.h"
#include "policy/value.h"

#define TRUSTED "kumomta:http-listener-trusted-ip"

/* JSON with ' for ". */
static json_t *json_of(const char *text)
{
	char *s = xstrdup(text);
	for (char *p = s; *p != 0; p++)
		*p = *p == '\'' ? '"' : *p;
	json_t *v = value_parse_json(str_of(s));
	if (v == NULL)
		fail_msg("%s: %s", s, err_text());
	free(s);
	return v;
}

static struct auth_info who_of(const char *text, struct arena *arena)
{
	struct auth_info who;
	json_t *v = json_of(text);
	if (auth_info_from_json(v, arena, &who) != 0)
		fail_msg("%s: %s", text, err_text());
	json_decref(v);
	return who;
}

static struct acl *acl_of(const char *text)
{
	json_t *v = json_of(text);
	struct acl *a = acl_from_json(v);
	if (a == NULL)
		fail_msg("%s: %s", text, err_text());
	json_decref(v);
	return a;
}

/* --- criteria --- */

enum { NOBODY, TRUSTED_PEER, SCOTT, OPS, V6, MAPPED, UNKNOWN_PEER, PEOPLE };
static const char *const people[PEOPLE] = {
	[NOBODY] = "{'peer_address': '192.0.2.9'}",
	[TRUSTED_PEER] = "{'peer_address': '127.0.0.1', 'groups': ['" TRUSTED "']}",
	[SCOTT] = "{'peer_address': '10.1.2.3', 'identities': "
		  "[{'identity': 'scott', 'context': 'HttpBasicAuth'}]}",
	[OPS] = "{'peer_address': '10.0.0.1', 'identities': [{'identity': 'ann', 'context': 'BearerToken'},"
		" {'identity': 'bob', 'context': 'GenericAuth'}], 'groups': ['ops', 'dev']}",
	[V6] = "{'peer_address': '2001:db8::1'}",
	[MAPPED] = "{'peer_address': '::ffff:10.0.0.1'}",
	[UNKNOWN_PEER] = "{}",
};

static const struct {
	const char *criteria;
	const char *matches; /* a letter for each of people: y or n */
} criteria[] = {
	{"{'Identity': {'Any': {}}}", "yyyyyyy"},
	{"{'Identity': 'Any'}", "yyyyyyy"},
	{"{'Identity': {'Any': []}}", "yyyyyyy"},
	{"{'Identity': {'Authenticated': {}}}", "nnyynnn"},
	{"{'Identity': {'Unauthenticated': {}}}", "yynnyyy"},
	{"{'Identity': {'Individual': 'scott'}}", "nnynnnn"},
	{"{'Identity': {'Individual': 'Scott'}}", "nnnnnnn"},
	{"{'Identity': {'Individual': 'bob'}}", "nnnynnn"},
	{"{'Identity': {'Individual': 'ops'}}", "nnnnnnn"},
	{"{'Identity': {'Individual': ''}}", "nnnnnnn"},
	{"{'Identity': {'Group': 'ops'}}", "nnnynnn"},
	{"{'Identity': {'Group': 'scott'}}", "nnnnnnn"},
	{"{'Identity': {'Group': '" TRUSTED "'}}", "nynnnnn"},
	{"{'Identity': {'Machine': '10.0.0.1'}}", "nnnynyn"},
	{"{'Identity': {'Machine': '2001:db8::1'}}", "nnnnynn"},
	{"{'Machine': '10.0.0.1'}", "nnnynyn"},
	{"{'Identity': {'MachineSet': ['10.0.0.0/8', '2001:db8::/32']}}", "nnyyyyn"},
	{"{'Identity': {'MachineSet': ['192.0.2.9', '127.0.0.1']}}", "yynnnnn"},
	{"{'Identity': {'MachineSet': []}}", "nnnnnnn"},
	{"{'Not': {'Identity': {'MachineSet': {}}}}", "yyyyyyy"},
	{"{'Identity': {'MachineSet': ['0.0.0.0/0']}}", "yyyynyn"},
	{"{'Not': {'Identity': {'Group': 'ops'}}}", "yyynyyy"},
	{"{'Not': {'Not': {'Identity': {'Group': 'ops'}}}}", "nnnynnn"},
	{"{'AllOf': [{'Identity': {'Group': 'ops'}}, {'Machine': '10.0.0.1'}]}", "nnnynnn"},
	{"{'AllOf': [{'Identity': {'Group': 'ops'}}, {'Machine': '10.0.0.2'}]}", "nnnnnnn"},
	{"{'AllOf': [{'Identity': {'Any': {}}}]}", "yyyyyyy"},
	{"{'AnyOf': [{'Identity': {'Group': 'ops'}}, {'Identity': {'Individual': 'scott'}}]}", "nnyynnn"},
	{"{'AnyOf': [{'AllOf': [{'Identity': {'Authenticated': {}}}, {'Not': {'Identity': {'Group': "
	 "'ops'}}}]}, {'Machine': "
	 "'192.0.2.9'}]}",
	 "ynynnnn"},
};

static void test_criteria(void **state)
{
	struct arena arena = ARENA_INIT;
	for (size_t i = 0; i < ARRAY_SIZE(criteria); i++) {
		char *rules = xasprintf("[{'criteria': %s, 'privilege': 'GET', 'access': 'Allow'}]",
					criteria[i].criteria);
		struct acl *a = acl_of(rules);
		for (size_t k = 0; k < PEOPLE; k++) {
			struct auth_info who = who_of(people[k], &arena);
			bool is_match = acl_find(a, &who, STR("GET")) != NULL;
			if (is_match != (criteria[i].matches[k] == 'y'))
				fail_msg("%s: %s", criteria[i].criteria, people[k]);
			assert_null(acl_find(a, &who, STR("POST")));
		}
		acl_unref(a);
		free(rules);
	}
	arena_fini(&arena);
}

static const struct {
	const char *rules, *error;
} bad_lists[] = {
	{"5", "expected a list of rules"},
	{"{'a': 1}", "expected a list of rules"},
	{"[5]", "rule 1: deserialize error"},
	{"[{'criteria': 'Any', 'privilege': 'GET'}]", "missing field `access`"},
	{"[{'criteria': 'Any', 'access': 'Deny'}]", "missing field `privilege`"},
	{"[{'privilege': 'GET', 'access': 'Deny'}]", "missing field `criteria`"},
	{"[{'criteria': {'Identity': 'Any'}, 'privilege': 'GET', 'access': 'allow'}]",
	 "expected one of `Allow`, `Deny`"},
	{"[{'criteria': {'Identity': 'Any'}, 'privilege': ['GET'], 'access': 'Allow'}]", "expected a string"},
	{"[{'criteria': {'Identity': 'Any'}, 'privilege': 'GET', 'access': 'Allow', 'acces': 1}]",
	 "did you mean `access`?"},
	{"[{'criteria': 'Identity', 'privilege': 'GET', 'access': 'Allow'}]", "exactly one key"},
	{"[{'criteria': {}, 'privilege': 'GET', 'access': 'Allow'}]", "exactly one key"},
	{"[{'criteria': {'Identity': {'Group': 'a', 'Machine': "
	 "'1.1.1.1'}}, 'privilege': 'GET', 'access': 'Allow'}]",
	 "exactly one key"},
	{"[{'criteria': {'identity': 'Any'}, 'privilege': 'GET', 'access': 'Allow'}]",
	 "unknown variant `identity`, expected one of `Identity`, `AllOf`, `AnyOf`, `Not`"},
	{"[{'criteria': {'Identity': {'Role': 'x'}}, 'privilege': 'GET', 'access': 'Allow'}]",
	 "expected one of `Individual`, `Group`, `Machine`, `MachineSet`, `Authenticated`, "
	 "`Unauthenticated`, `Any`"},
	{"[{'criteria': {'Identity': {'Any': 'x'}}, 'privilege': 'GET', 'access': 'Allow'}]",
	 "Any: an empty table"},
	{"[{'criteria': {'Identity': {'Group': 5}}, 'privilege': 'GET', 'access': 'Allow'}]",
	 "Group: a name as text"},
	{"[{'criteria': {'Identity': {'Machine': '10.0.0.0/8'}}, 'privilege': 'GET', 'access': 'Allow'}]",
	 "is not an IP address"},
	{"[{'criteria': {'Identity': {'MachineSet': "
	 "['10.0.0.0/33']}}, 'privilege': 'GET', 'access': 'Allow'}]",
	 "MachineSet"},
	{"[{'criteria': {'Identity': {'MachineSet': '10.0.0.0/8'}}, 'privilege': 'GET', 'access': 'Allow'}]",
	 "MachineSet: a list"},
	{"[{'criteria': {'AllOf': []}, 'privilege': 'GET', 'access': 'Allow'}]", "AllOf: a list of 1 to"},
	{"[{'criteria': {'AnyOf': {'Identity': 'Any'}}, 'privilege': 'GET', 'access': 'Allow'}]",
	 "AnyOf: a list"},
	{"[{'criteria': {'Identity': 'Any'}, 'privilege': 'GET', 'access': 'Allow'},"
	 " {'criteria': {'Not': 5}, 'privilege': 'GET', 'access': 'Allow'}]",
	 "rule 2"},
};

static void test_bad_lists(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(bad_lists); i++) {
		json_t *v = json_of(bad_lists[i].rules);
		assert_null(acl_from_json(v));
		if (strstr(err_text(), bad_lists[i].error) == NULL)
			fail_msg("%s: %s", bad_lists[i].rules, err_text());
		err_clear();
		json_decref(v);
	}
}

static void test_depth(void **state)
{
	for (int depth = 14; depth <= 20; depth += 6) {
		struct buf b = BUF_INIT;
		buf_add_z(&b, "[{'privilege': 'GET', 'access': 'Allow', 'criteria': ");
		for (int i = 0; i < depth; i++)
			buf_add_z(&b, "{'AllOf': [");
		buf_add_z(&b, "{'Identity': {'MachineSet': ['10.0.0.0/8']}}");
		for (int i = 0; i < depth; i++)
			buf_add_z(&b, "]}");
		buf_add_z(&b, "}]");
		json_t *v = json_of(b.p);
		struct acl *a = acl_from_json(v);
		assert_true((a != NULL) == (depth == 14));
		if (a == NULL)
			assert_non_null(strstr(err_text(), "nested deeper than 16 levels"));
		err_clear();
		acl_unref(a);
		json_decref(v);
		buf_fini(&b);
	}
}

/* The first match decides, whichever way. */
static void test_order(void **state)
{
	struct arena arena = ARENA_INIT;
	struct auth_info ops = who_of(people[OPS], &arena), scott = who_of(people[SCOTT], &arena);
	struct acl *deny_first = acl_of(
		"[{'criteria': {'Identity': {'Machine': '10.0.0.1'}}, 'privilege': 'POST', 'access': 'Deny'},"
		" {'criteria': {'Identity': 'Authenticated'}, 'privilege': 'POST', 'access': 'Allow'}]");
	assert_false(acl_find(deny_first, &ops, STR("POST"))->is_allow);
	assert_true(acl_find(deny_first, &scott, STR("POST"))->is_allow);
	assert_null(acl_find(deny_first, &scott, STR("GET")));
	struct acl *allow_first =
		acl_of("[{'criteria': {'Identity': 'Authenticated'}, 'privilege': 'POST', 'access': 'Allow'},"
		       " {'criteria': {'Identity': {'Machine': "
		       "'10.0.0.1'}}, 'privilege': 'POST', 'access': 'Deny'}]");
	assert_true(acl_find(allow_first, &ops, STR("POST"))->is_allow);
	acl_unref(deny_first);
	acl_unref(allow_first);

	struct acl *empty = acl_of("[]");
	assert_int_equal(acl_n_rules(empty), 0);
	assert_null(acl_find(empty, &ops, STR("GET")));
	acl_unref(empty);
	arena_fini(&arena);
}

/* A rule about GET is one about HEAD, and not the other way. */
static void test_head(void **state)
{
	struct arena arena = ARENA_INIT;
	struct auth_info who = who_of("{}", &arena);
	struct acl *a = acl_of("[{'criteria': {'Identity': 'Any'}, 'privilege': 'GET', 'access': 'Allow'}]");
	assert_non_null(acl_find(a, &who, STR("HEAD")));
	assert_null(acl_find(a, &who, STR("get")));
	acl_unref(a);
	a = acl_of("[{'criteria': {'Identity': 'Any'}, 'privilege': 'HEAD', 'access': 'Deny'}]");
	assert_null(acl_find(a, &who, STR("GET")));
	assert_false(acl_find(a, &who, STR("HEAD"))->is_allow);
	acl_unref(a);
	arena_fini(&arena);
}

static void test_rule_json(void **state)
{
	struct acl *a = acl_of("[{'access': 'Deny', 'privilege': 'a\\'b', 'criteria': {'AnyOf': [{'Not': "
			       "{'Machine': '::ffff:10.0.0.1'}},"
			       " {'Identity': {'MachineSet': ['10.0.0.0/8', '::1/128']}}, {'Any': {}}]}}]");
	assert_str_is(
		acl_rule_at(a, 0)->json,
		"{\"criteria\":{\"AnyOf\":[{\"Not\":{\"Identity\":{\"Machine\":\"10.0.0.1\"}}},"
		"{\"Identity\":{\"MachineSet\":[\"10.0.0.0/8\",\"::1\"]}},{\"Identity\":{\"Any\":{}}}]},"
		"\"privilege\":\"a\\\"b\",\"access\":\"Deny\"}");
	struct buf b = BUF_INIT;
	acl_write(a, &b);
	json_t *v = value_parse_json(buf_str(&b));
	struct acl *again = acl_from_json(v);
	assert_str_is(acl_rule_at(again, 0)->json, acl_rule_at(a, 0)->json.p);
	json_decref(v);
	buf_fini(&b);
	acl_unref(again);
	acl_unref(a);
}

/* --- maps --- */

static void test_map(void **state)
{
	static const char toml[] = "# comment\n[[acl.\"http_listener/*/x\"]]\nallow = true\nprivileges = "
				   "[\"GET\", \"POST\"]\nidentity.Group = \"ops\"\n"
				   "[[acl.\"http_listener/*/x\"]]\nallow = false\nprivileges = [\"GET\"]\n"
				   "criteria.AllOf = [ {Identity = { Group = 'admins' }}, "
				   "{Identity={Machine = \"10.0.0.1\"}} ]\n"
				   "[[acl.y]]\nallow = true\nprivileges = []\nidentity.Any = {}\n";
	static const char json[] = " {\"acl\": {\"http_listener/*/x\": [{\"allow\": true, \"privileges\": "
				   "[\"GET\", \"POST\"], \"identity\": {\"Group\": \"ops\"}},"
				   " {\"allow\": false, \"privileges\": [\"GET\"], \"criteria\": {\"AllOf\": "
				   "[{\"Identity\": {\"Group\": \"admins\"}},"
				   " {\"Identity\": {\"Machine\": \"10.0.0.1\"}}]}}], \"y\": [{\"allow\": "
				   "true, \"privileges\": [], \"identity\": {\"Any\": {}}}]}}";
	const char *text[] = {toml, json};
	for (size_t i = 0; i < 2; i++) {
		struct acl_map *m = acl_map_parse(str_of(text[i]));
		if (m == NULL)
			fail_msg("%s", err_text());
		const struct acl *a = acl_map_find(m, STR("http_listener/*/x"));
		assert_int_equal(acl_n_rules(a), 3);
		assert_str_is(acl_rule_at(a, 1)->json, "{\"criteria\":{\"Identity\":{\"Group\":\"ops\"}},"
						       "\"privilege\":\"POST\",\"access\":\"Allow\"}");
		assert_false(acl_rule_at(a, 2)->is_allow);
		assert_int_equal(acl_n_rules(acl_map_find(m, STR("y"))), 0);
		assert_null(acl_map_find(m, STR("http_listener/*")));
		acl_map_unref(m);
	}
	struct acl_map *none = acl_map_parse(STR("acl = {}"));
	assert_non_null(none);
	acl_map_unref(none);
}

static const struct {
	const char *text, *error;
} bad_maps[] = {
	{"", "missing field `acl`"},
	{"{", "line 1"},
	{"acl = 5", "invalid type: `acl`"},
	{"[[acls.x]]\nallow = true", "unknown field `acls`"},
	{"version = 1\nacl = {}", "unknown field `version`"},
	{"[acl.x]\nallow = true\nprivileges = ['GET']\nidentity.Any = {}",
	 "acl.\"x\": deserialize error: a list of rules"},
	{"[[acl.x]]\nprivileges = ['GET']\nidentity.Any = {}",
	 "acl.\"x\": rule 1: deserialize error: missing field `allow`"},
	{"[[acl.x]]\nallow = true\nidentity.Any = {}", "missing field `privileges`"},
	{"[[acl.x]]\nallow = true\nprivileges = 'GET'\nidentity.Any = {}", "invalid type: string \"GET\""},
	{"[[acl.x]]\nallow = true\nprivileges = ['GET']", "missing field `identity` or `criteria`"},
	{"[[acl.x]]\nallow = true\nprivileges = ['GET']\nidentity.Any = {}\ncriteria.Identity.Any = {}",
	 "exclude each other"},
	{"[[acl.x]]\nallow = true\nprivileges = ['GET']\nidentity.Grp = 'x'", "unknown variant `Grp`"},
	{"[[acl.x]]\nallow = true\nprivilege = ['GET']\nidentity.Any = {}", "did you mean `privileges`?"},
	{"[[acl.x]\n", "line"},
};

static void test_bad_maps(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(bad_maps); i++) {
		assert_null(acl_map_parse(str_of(bad_maps[i].text)));
		if (strstr(err_text(), bad_maps[i].error) == NULL)
			fail_msg("%s: %s", bad_maps[i].text, err_text());
		err_clear();
	}
}

/* Contracts B7, row by row: who may do what by default. */
static const struct {
	const char *resource, *methods;
	bool is_trusted, is_logged_in, is_anyone; /* who may */
} defaults[] = {
	{"http_listener/*/api/check-liveness", "GET HEAD", true, true, true},
	{"http_listener/*/rapidoc", "GET HEAD", true, true, true},
	{"http_listener/*/api-docs/openapi.json", "GET HEAD", true, true, true},
	{"http_listener/*/api/inject", "POST", true, true, false},
	{"http_listener/*/api/admin", "GET HEAD POST DELETE", true, false, false},
	{"http_listener/*/api/machine-info", "GET HEAD", true, false, false},
	{"http_listener/*/metrics", "GET HEAD", true, false, false},
	{"http_listener/*/metrics.json", "GET HEAD", true, false, false},
	{"http_listener/*/api/xfer", "POST", true, false, false},
	{"http_listener/*/publish_log_v1", "POST", true, false, false},
	{"http_listener/*/tsa/status", "GET HEAD", true, true, true},
	{"http_listener/*/get_config_v1", "GET HEAD", true, false, false},
	{"http_listener/*/get_suspension_v1", "GET HEAD", true, false, false},
	{"http_listener/*/get_bounce_v1", "GET HEAD", true, false, false},
	{"http_listener/*/subscribe_suspension_v1", "GET HEAD", true, false, false},
	{"http_listener/*/subscribe_event_v1", "GET HEAD", true, false, false},
};

static bool default_allows(const char *resource, const struct auth_info *who, str_t method)
{
	const struct acl *a = acl_default_find(str_of(resource));
	const struct acl_rule *r = a != NULL ? acl_find(a, who, method) : NULL;
	return r != NULL && r->is_allow;
}

static void test_defaults(void **state)
{
	static const char *const methods[] = {"GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"};
	struct arena arena = ARENA_INIT;
	struct auth_info nobody = who_of(people[NOBODY], &arena),
			 trusted = who_of(people[TRUSTED_PEER], &arena),
			 scott = who_of(people[SCOTT], &arena);
	for (size_t i = 0; i < ARRAY_SIZE(defaults); i++) {
		for (size_t k = 0; k < ARRAY_SIZE(methods); k++) {
			const char *at = strstr(defaults[i].methods, methods[k]);
			bool is_listed = at != NULL;
			str_t m = str_of(methods[k]);
			assert_int_equal(default_allows(defaults[i].resource, &trusted, m),
					 is_listed && defaults[i].is_trusted);
			assert_int_equal(default_allows(defaults[i].resource, &scott, m),
					 is_listed && defaults[i].is_logged_in);
			assert_int_equal(default_allows(defaults[i].resource, &nobody, m),
					 is_listed && defaults[i].is_anyone);
		}
	}
	static const char *const without[] = {"http_listener",
					      "http_listener/*",
					      "http_listener/*/api",
					      "http_listener/*/proxy/status",
					      "http_listener/127.0.0.1:8000",
					      ""};
	for (size_t i = 0; i < ARRAY_SIZE(without); i++)
		assert_null(acl_default_find(str_of(without[i])));
	arena_fini(&arena);
}

/* --- resources --- */

static const struct {
	const char *listener, *url;
	const char *names; /* one a blank */
} resources[] = {
	{"127.0.0.1:8080", "https://localhost/foo/bar/baz",
	 "http_listener/127.0.0.1:8080/foo/bar/baz http_listener/127.0.0.1:8080/foo/bar "
	 "http_listener/127.0.0.1:8080/foo"
	 " http_listener/127.0.0.1:8080 http_listener/*/foo/bar/baz http_listener/*/foo/bar "
	 "http_listener/*/foo http_listener"},
	{"0.0.0.0:80", "http://x:1/metrics?a=/b#c",
	 "http_listener/0.0.0.0:80/metrics http_listener/0.0.0.0:80 http_listener/*/metrics http_listener"},
	{"[::1]:80", "/metrics",
	 "http_listener/[::1]:80/metrics http_listener/[::1]:80 http_listener/*/metrics http_listener"},
	{"unix:/run/c.sock", "/metrics",
	 "http_listener/unix:/run/c.sock/metrics "
	 "http_listener/unix:/run/c.sock http_listener/*/metrics http_listener"},
	{"127.0.0.1:1", "http://x", "http_listener/127.0.0.1:1 http_listener"},
	{"127.0.0.1:1", "http://x/", "http_listener/127.0.0.1:1 http_listener"},
	{"127.0.0.1:1", "HTTP://x?q=/a", "http_listener/127.0.0.1:1 http_listener"},
	{"127.0.0.1:1", "//a//",
	 "http_listener/127.0.0.1:1/a http_listener/127.0.0.1:1 http_listener/*/a http_listener"},
	{"127.0.0.1:1", "/x/../%61/./%2e%2e/b",
	 "http_listener/127.0.0.1:1/b http_listener/127.0.0.1:1 http_listener/*/b http_listener"},
	{"127.0.0.1:1", "/../..", "http_listener/127.0.0.1:1 http_listener"},
};

static void test_resources(void **state)
{
	struct arena arena = ARENA_INIT;
	for (size_t i = 0; i < ARRAY_SIZE(resources); i++) {
		struct resource r;
		struct buf names = BUF_INIT;
		assert_int_equal(
			resource_of_url(&arena, str_of(resources[i].listener), str_of(resources[i].url), &r),
			0);
		for (size_t k = 0; k < r.n; k++) {
			buf_add_z(&names, k != 0 ? " " : "");
			buf_add_str(&names, r.candidate[k]);
		}
		assert_buf_is(&names, resources[i].names);
		buf_fini(&names);
	}
	static const char *const bad[] = {"",	  "foo",  "ftp://x/", "http:///x", "http://",
					  "/%zz", "/%00", "/%ff",     "/a%2"};
	struct resource r;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		if (resource_of_url(&arena, STR("127.0.0.1:1"), str_of(bad[i]), &r) == 0)
			fail_msg("taken: %s", bad[i]);
		err_clear();
	}
	arena_fini(&arena);
}

/* What is behind 10 components or 256 bytes does not count. */
static void test_resource_limits(void **state)
{
	struct arena arena = ARENA_INIT;
	str_t a = STR("127.0.0.1:1");
	struct resource r;
	struct buf path = BUF_INIT;
	resource_of_path(&arena, a, STR("/1/2/3/4/5/6/7/8/9/10/11/12"), &r);
	assert_int_equal(r.n, RESOURCE_CANDIDATES_MAX);
	assert_str_is(r.candidate[0], "http_listener/127.0.0.1:1/1/2/3/4/5/6/7/8/9/10");
	assert_str_is(r.candidate[10], "http_listener/127.0.0.1:1");
	assert_str_is(r.candidate[11], "http_listener/*/1/2/3/4/5/6/7/8/9/10");
	for (int i = 0; i < 100; i++)
		buf_add_z(&path, "/a/\xe2\x82\xac\xe2\x82\xac");
	resource_of_path(&arena, a, buf_str(&path), &r);
	assert_int_equal(r.n, RESOURCE_CANDIDATES_MAX);
	buf_clear(&path);
	buf_add_z(&path, "/aa");
	for (int i = 0; i < 200; i++)
		buf_add_z(&path, "\xe2\x82\xac");
	resource_of_path(&arena, a, buf_str(&path), &r);
	assert_int_equal(r.n, 4);
	assert_int_equal(r.candidate[2].n, strlen("http_listener/*") + 255); /* 256 would cut a character */
	assert_true(str_is_utf8(r.candidate[0]));
	buf_fini(&path);
	arena_fini(&arena);
}

/* --- AuthInfo --- */

static void test_auth_info(void **state)
{
	static const struct {
		const char *in, *out, *name;
	} cases[] = {
		{"{}", "{\"peer_address\":null,\"identities\":[],\"groups\":[]}", ""},
		{"[]", "{\"peer_address\":null,\"identities\":[],\"groups\":[]}", ""},
		{"{'peer_address': '::1', 'identities': {}, 'groups': {}}",
		 "{\"peer_address\":\"::1\",\"identities\":[],\"groups\":[]}", "::1"},
		{"{'groups': ['a', 'b', 'a', 'c', 'd', 'e'], 'identities': [{'identity': 'x', 'context': "
		 "'BearerToken'},"
		 " {'context': 'HttpBasicAuth', 'identity': 'y'}, "
		 "{'identity': 'x', 'context': 'BearerToken'}]}",
		 "{\"peer_address\":null,\"identities\":[{\"identity\":\"x\",\"context\":\"BearerToken\"},"
		 "{\"identity\":\"y\",\"context\":\"HttpBasicAuth\"}],\"groups\":[\"a\",\"b\",\"c\",\"d\","
		 "\"e\"]}",
		 "y"},
		{"{'peer_address': '10.0.0.1', 'identities': [{'identity': 'x', 'context': 'GenericAuth'}]}",
		 "{\"peer_address\":\"10.0.0.1\",\"identities\":[{\"identity\":\"x\",\"context\":"
		 "\"GenericAuth\"}],\"groups\":[]}",
		 "x"},
	};
	struct arena arena = ARENA_INIT;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct auth_info who = who_of(cases[i].in, &arena);
		struct buf b = BUF_INIT;
		struct json_out j = json_out_to(&b);
		auth_info_write(&who, &j);
		assert_buf_is(&b, cases[i].out);
		assert_str_is(auth_info_name(&who), cases[i].name);
		json_t *v = auth_info_json(&who);
		struct auth_info again;
		assert_int_equal(auth_info_from_json(v, &arena, &again), 0);
		assert_int_equal(again.n_identities, who.n_identities);
		assert_int_equal(again.n_groups, who.n_groups);
		json_decref(v);
		buf_fini(&b);
	}
	static const char *const contexts[] = {"SmtpAuthPlainAuthorization",
					       "SmtpAuthPlainAuthentication",
					       "HttpBasicAuth",
					       "BearerToken",
					       "ProxyAuthRfc1929",
					       "LocalSystem",
					       "TlsClientCertificate",
					       "GenericAuth"};
	for (size_t i = 0; i < ARRAY_SIZE(contexts); i++)
		assert_string_equal(auth_context_name((enum auth_context)i), contexts[i]);
	arena_fini(&arena);
}

static void test_bad_auth_info(void **state)
{
	static const struct {
		const char *in, *error;
	} cases[] = {
		{"5", "a table with identities and groups"},
		{"['a']", "a table with identities and groups"},
		{"{'group': ['a']}",
		 "unknown field `group`, expected one of `peer_address`, `identities`, `groups`"},
		{"{'groups': 'a'}", "`groups` must be a list"},
		{"{'groups': [5]}", "list of names"},
		{"{'groups': ['a\\u0000b']}", "list of names"},
		{"{'identities': ['scott']}", "must be { identity = TEXT, context = TEXT }"},
		{"{'identities': [{'identity': 'a'}]}", "must be { identity = TEXT, context = TEXT }"},
		{"{'identities': [{'identity': 'a', 'context': 'Magic'}]}", "unknown variant `Magic`"},
		{"{'identities': [{'identity': 'a', 'context': 'GenericAuth', 'x': 1}]}",
		 "unknown field `x`"},
		{"{'peer_address': 'here'}", "is not an IP address"},
		{"{'peer_address': 5}", "peer_address must be an IP address"},
	};
	struct arena arena = ARENA_INIT;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct auth_info who;
		char *s = xstrdup(cases[i].in);
		for (char *p = s; *p != 0; p++)
			*p = *p == '\'' ? '"' : *p;
		json_t *v = value_parse_json_relaxed(str_of(s));
		assert_non_null(v);
		assert_int_equal(auth_info_from_json(v, &arena, &who), -1);
		if (strstr(err_text(), cases[i].error) == NULL)
			fail_msg("%s: %s", cases[i].in, err_text());
		err_clear();
		json_decref(v);
		free(s);
	}
	arena_fini(&arena);
}

/* --- Authorization headers --- */

static const struct {
	const char *value;
	const char *user, *password; /* user NULL: refused; password NULL: none */
} basics[] = {
	{"Basic c2NvdHQ6dGlnZXI=", "scott", "tiger"},
	{"basic c2NvdHQ6dGlnZXI=", "scott", "tiger"},
	{"BASIC   c2NvdHQ6dGlnZXI=", "scott", "tiger"},
	{"Basic c2NvdHQ=", "scott", NULL},
	{"Basic c2NvdHQ6", "scott", ""},
	{"Basic Og==", "", ""},
	{"Basic OnB3", "", "pw"},
	{"Basic YTpiOmM=", "a", "b:c"},
	{"Basic asO8OuKCrA==", "jü", "€"},
	{"Basic", NULL, NULL},
	{"Basic ", NULL, NULL},
	{"Basicc2NvdHQ6dGlnZXI=", NULL, NULL},
	{"Basic !!!", NULL, NULL},
	{"Basic c2NvdHQ6dGlnZXI", NULL, NULL},	 /* no padding */
	{"Basic c2NvdHQ6dGlnZXI==", NULL, NULL}, /* too much */
	{"Basic c2NvdHQ6dGlnZXJ=", NULL, NULL},	 /* stray bits */
	{"Basic c2Nv dHQ6dGlnZXI=", NULL, NULL},
	{"Basic c2NvdHQ6dGlnZXI= x", NULL, NULL},
	{"Basic c2NvdHQ6dGlnZXI=,", NULL, NULL},
	{"Basic c2NvdHQ6AA==", NULL, NULL}, /* NUL */
	{"Basic c2Nv\tdHQ6", NULL, NULL},
	{"Basic c2NvdHQKOng=", NULL, NULL}, /* LF in the name */
	{"Basic /zr/", NULL, NULL},	    /* no UTF-8 */
	{"Digest username=\"x\"", NULL, NULL},
	{"Negotiate abc", NULL, NULL},
	{"", NULL, NULL},
	{" Basic Og==", NULL, NULL},
};

static void test_basic(void **state)
{
	struct arena arena = ARENA_INIT;
	for (size_t i = 0; i < ARRAY_SIZE(basics); i++) {
		struct credential c;
		const char *why = NULL;
		bool is_good = credential_parse(str_of(basics[i].value), &arena, &c, &why);
		if (is_good != (basics[i].user != NULL))
			fail_msg("\"%s\": %s", basics[i].value, is_good ? "taken" : why);
		if (!is_good) {
			assert_true(why != NULL && strlen(why) > 10);
			continue;
		}
		assert_int_equal(c.kind, CREDENTIAL_BASIC);
		assert_str_is(c.user, basics[i].user);
		assert_true((c.password.p != NULL) == (basics[i].password != NULL));
		if (c.password.p != NULL)
			assert_str_is(c.password, basics[i].password);
	}
	arena_fini(&arena);
}

static void test_bearer(void **state)
{
	static const struct {
		const char *value, *token;
	} cases[] = {
		{"Bearer abc", "abc"},	 {"bearer  a.b-c_d~e+f/g==", "a.b-c_d~e+f/g=="},
		{"Bearer a:b!", "a:b!"}, {"Bearer", NULL},
		{"Bearer ", NULL},	 {"Bearer a b", NULL},
		{"Bearer a\tb", NULL},	 {"Bearer \xc3\xa9", NULL},
		{"Bearera", NULL},
	};
	struct arena arena = ARENA_INIT;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct credential c;
		const char *why;
		assert_int_equal(credential_parse(str_of(cases[i].value), &arena, &c, &why),
				 cases[i].token != NULL);
		if (cases[i].token == NULL)
			continue;
		assert_int_equal(c.kind, CREDENTIAL_BEARER);
		assert_str_is(c.secret, cases[i].token);
	}
	arena_fini(&arena);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_criteria),
		cmocka_unit_test(test_bad_lists),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_head),
		cmocka_unit_test(test_rule_json),
		cmocka_unit_test(test_map),
		cmocka_unit_test(test_bad_maps),
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_resources),
		cmocka_unit_test(test_resource_limits),
		cmocka_unit_test(test_auth_info),
		cmocka_unit_test(test_bad_auth_info),
		cmocka_unit_test(test_basic),
		cmocka_unit_test(test_bearer),

	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
