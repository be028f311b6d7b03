/* machine.c - GET /api/machine-info: which node this is, and what it runs on. All of it but the host name is
 * read once, when the routes are added. What cannot be found out is "unknown"; without a container the field
 * is null.
 *
 * The machine's own id is told as a hash, since machine-id(5) asks for it to be kept within the machine: the
 * same on every start, of no use elsewhere. */
#include "api/api_impl.h"

#include "base/alloc.h"
#include "base/json.h"
#include "base/map.h"
#include "base/text.h"
#include "record/node_id.h"

#include <ctype.h>
#include <dirent.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/utsname.h>
#include <unistd.h>

enum { MACHINE_LINE_BYTES = 1024, MACHINE_UID_BYTES = 16 };

static struct {
	wall_t online_since;
	struct buf mac, kernel, platform, distribution, os, container, cpu, uid;
	uint64_t memory_bytes;
} machine;

/* --- reading --- */

/* The first line of a file, without its end; empty when there is none. */
static void machine_read_line(const char *path, struct buf *out)
{
	char line[MACHINE_LINE_BYTES] = "";
	FILE *f = fopen(path, "re");
	buf_clear(out);
	if (f == NULL)
		return;
	if (fgets(line, sizeof(line), f) != NULL)
		buf_add_str(out, str_trim(str_of(line)));
	fclose(f);
}

/* The value behind `key` and `separator` in a file of such lines, quotes taken off; false: there is none. *f
 * goes on from there. */
static bool machine_next_value(FILE *f, const char *key, char separator, struct buf *out)
{
	char line[MACHINE_LINE_BYTES];
	while (fgets(line, sizeof(line), f) != NULL) {
		str_t s = str_of(line);
		ptrdiff_t at = str_chr(s, separator, 0);
		if (at < 0 || !str_eq(str_trim(str_head(s, (size_t)at)), str_of(key)))
			continue;
		str_t value = str_trim(str_skip(s, (size_t)at + 1));
		if (value.n >= 2 && (value.p[0] == '"' || value.p[0] == '\'') &&
		    value.p[value.n - 1] == value.p[0])
			value = str_mk(value.p + 1, value.n - 2);
		buf_clear(out);
		buf_add_str(out, value);
		return true;
	}
	return false;
}

static void machine_read_value(const char *path, const char *key, char separator, struct buf *out)
{
	FILE *f = fopen(path, "re");
	buf_clear(out);
	if (f == NULL)
		return;
	(void)machine_next_value(f, key, separator, out);
	fclose(f);
}

/* The interface of the default route, or "". */
static void machine_read_interface(char name[32])
{
	char line[MACHINE_LINE_BYTES], dest[32];
	FILE *f = fopen("/proc/net/route", "re");
	name[0] = 0;
	if (f == NULL)
		return;
	while (fgets(line, sizeof(line), f) != NULL) {
		if (sscanf(line, "%31s %31s", name, dest) == 2 && strcmp(dest, "00000000") == 0)
			break;
		name[0] = 0;
	}
	fclose(f);
}

static bool machine_read_mac_of(const char *interface, struct buf *out)
{
	char path[PATH_MAX];
	snprintf(path, sizeof(path), "/sys/class/net/%.64s/address", interface);
	machine_read_line(path, out);
	if (out->n == 0 || str_eq(buf_str(out), STR("00:00:00:00:00:00")))
		return false;
	for (size_t i = 0; i < out->n; i++)
		out->p[i] = (char)toupper((unsigned char)out->p[i]);
	return true;
}

/* Of the interface of the default route, else of the first one by name that has an address. */
static void machine_read_mac(struct buf *out)
{
	char first[32];
	struct dirent **entry = NULL;
	machine_read_interface(first);
	if (first[0] != 0 && machine_read_mac_of(first, out))
		return;
	int n = scandir("/sys/class/net", &entry, NULL, alphasort);
	bool is_found = false;
	for (int i = 0; i < n; i++) {
		if (!is_found && entry[i]->d_name[0] != '.')
			is_found = machine_read_mac_of(entry[i]->d_name, out);
		free(entry[i]);
	}
	free(entry);
	if (is_found)
		return;
	buf_clear(out);
	buf_add_z(out, "00:00:00:00:00:00");
}

/* The distinct models, joined by commas. */
static void machine_read_cpu(struct buf *out)
{
	struct buf model = BUF_INIT;
	FILE *f = fopen("/proc/cpuinfo", "re");
	while (f != NULL && machine_next_value(f, "model name", ':', &model)) {
		if (out->n != 0 && str_find(buf_str(out), buf_str(&model)) >= 0)
			continue;
		if (out->n != 0)
			buf_add_c(out, ',');
		buf_add_str(out, buf_str(&model));
	}
	if (f != NULL)
		fclose(f);
	buf_fini(&model);
}

static void machine_read_container(struct buf *out)
{
	static const char *const marks[][2] = {{"/.dockerenv", "docker"}, {"/run/.containerenv", "podman"}};
	static const char *const words[] = {"kubepods", "docker", "containerd", "lxc", "garden"};
	const char *given = getenv("container"); /* systemd's container interface */
	if (getenv("KUBERNETES_SERVICE_HOST") != NULL)
		buf_add_z(out, "kubernetes");
	for (size_t i = 0; out->n == 0 && i < ARRAY_SIZE(marks); i++) {
		if (access(marks[i][0], F_OK) == 0)
			buf_add_z(out, marks[i][1]);
	}
	if (out->n == 0 && given != NULL)
		buf_add_z(out, given);
	struct buf group = BUF_INIT;
	machine_read_line("/proc/self/cgroup", &group);
	for (size_t i = 0; out->n == 0 && i < ARRAY_SIZE(words); i++) {
		if (str_find(buf_str(&group), str_of(words[i])) >= 0)
			buf_add_z(out, strcmp(words[i], "kubepods") == 0 ? "kubernetes" : words[i]);
	}
	buf_fini(&group);
}

static void machine_read_uid(struct buf *out)
{
	unsigned char hash[EVP_MAX_MD_SIZE];
	struct buf id = BUF_INIT;
	machine_read_line("/etc/machine-id", &id);
	if (id.n == 0)
		machine_read_line("/var/lib/dbus/machine-id", &id);
	if (id.n != 0) {
		buf_add_z(&id, " cirrus");
		if (EVP_Digest(id.p, id.n, hash, NULL, EVP_sha256(), NULL) == 1)
			hex_encode(out, str_mk((char *)hash, MACHINE_UID_BYTES));
	}
	buf_fini(&id);
}

static void machine_read_os(void)
{
	struct buf name = BUF_INIT, version = BUF_INIT;
	machine_read_value("/etc/os-release", "ID", '=', &machine.distribution);
	machine_read_value("/etc/os-release", "NAME", '=', &name);
	machine_read_value("/etc/os-release", "VERSION_ID", '=', &version);
	buf_add_z(&machine.os, "Linux");
	if (name.n != 0)
		buf_printf(&machine.os, " (" STR_FMT "%s" STR_FMT ")", STR_ARG(buf_str(&name)),
			   version.n != 0 ? " " : "", STR_ARG(buf_str(&version)));
	buf_fini(&name);
	buf_fini(&version);
}

static void machine_read(void)
{
	struct utsname u;
	struct buf kilobytes = BUF_INIT;
	machine.online_since = wall_now();
	if (uname(&u) == 0) {
		buf_add_z(&machine.kernel, u.release);
		for (const char *p = u.sysname; *p != 0; p++)
			buf_add_c(&machine.platform, (char)tolower((unsigned char)*p));
		buf_printf(&machine.platform, "/%s", u.machine);
	}
	machine_read_mac(&machine.mac);
	machine_read_os();
	machine_read_container(&machine.container);
	machine_read_cpu(&machine.cpu);
	machine_read_uid(&machine.uid);
	machine_read_value("/proc/meminfo", "MemTotal", ':', &kilobytes);
	if (kilobytes.n != 0)
		machine.memory_bytes = strtoull(kilobytes.p, NULL, 10) * 1024;
	buf_fini(&kilobytes);
}

/* --- answering --- */

static void machine_kv(struct json_out *j, str_t key, const struct buf *value)
{
	json_kv_str(j, key, value->n != 0 ? buf_str(value) : STR("unknown"));
}

static void api_machine_info(struct http_request *r, struct http_response *a, void *arg, mono_t deadline)
{
	char host[HOST_NAME_MAX + 1] = "localhost";
	struct json_out j = json_out_to(&a->body);
	(void)gethostname(host, sizeof(host) - 1);
	json_obj_begin(&j);
	json_kv_str(&j, STR("node_id"), str_of(node_id()));
	json_kv_str(&j, STR("hostname"), str_of(host));
	machine_kv(&j, STR("mac_address"), &machine.mac);
	json_kv_int(&j, STR("num_cores"), api_info.n_cores);
	machine_kv(&j, STR("kernel_version"), &machine.kernel);
	machine_kv(&j, STR("platform"), &machine.platform);
	machine_kv(&j, STR("distribution"), &machine.distribution);
	machine_kv(&j, STR("os_version"), &machine.os);
	json_key(&j, STR("total_memory_bytes"));
	json_uint(&j, machine.memory_bytes);
	if (machine.container.n != 0)
		json_kv_str(&j, STR("container_runtime"), buf_str(&machine.container));
	else
		json_kv_null(&j, STR("container_runtime"));
	machine_kv(&j, STR("cpu_brand"), &machine.cpu);
	char *fingerprint = machine.uid.n != 0 ? arena_printf(r->arena, "machine_uid=%s,node_id=%s",
							      machine.uid.p, node_id())
					       : arena_printf(r->arena, "node_id=%s", node_id());
	json_kv_str(&j, STR("fingerprint"), str_of(fingerprint));
	struct buf since = BUF_INIT;
	wall_fmt_rfc3339(machine.online_since, 9, &since);
	json_kv_str(&j, STR("online_since"), buf_str(&since));
	buf_fini(&since);
	json_kv_str(&j, STR("process_kind"), STR("kumod")); /* the role, which clients look at */
	json_kv_str(&j, STR("version"), str_of(api_info.version));
	json_obj_end(&j);
	a->content_type = "application/json";
}

static const struct http_field api_machine_fields[] = {
	{.name = "node_id",
	 .type = HTTP_STRING,
	 .is_required = true,
	 .format = "uuid",
	 .doc = "This node's id, the same for all its life."},
	{.name = "hostname", .type = HTTP_STRING, .is_required = true, .doc = "The machine's name."},
	{.name = "mac_address",
	 .type = HTTP_STRING,
	 .is_required = true,
	 .example = "\"02:02:02:02:02:02\"",
	 .doc = "Of the interface of the default route."},
	{.name = "num_cores",
	 .type = HTTP_INTEGER,
	 .is_required = true,
	 .doc = "Processors that this process may use."},
	{.name = "kernel_version", .type = HTTP_STRING, .is_nullable = true, .doc = "The kernel's release."},
	{.name = "platform",
	 .type = HTTP_STRING,
	 .is_required = true,
	 .example = "\"linux/x86_64\"",
	 .doc = "System and architecture."},
	{.name = "distribution",
	 .type = HTTP_STRING,
	 .is_required = true,
	 .example = "\"debian\"",
	 .doc = "The distribution's short name."},
	{.name = "os_version",
	 .type = HTTP_STRING,
	 .is_required = true,
	 .example = "\"Linux (Debian GNU/Linux 12)\"",
	 .doc = "The distribution and its version."},
	{.name = "total_memory_bytes",
	 .type = HTTP_INTEGER,
	 .is_required = true,
	 .doc = "Memory of the machine."},
	{.name = "container_runtime",
	 .type = HTTP_STRING,
	 .is_nullable = true,
	 .doc = "What container this runs in, as far as can be told."},
	{.name = "cpu_brand",
	 .type = HTTP_STRING,
	 .is_required = true,
	 .doc = "The processors' model; several are joined by commas."},
	{.name = "fingerprint",
	 .type = HTTP_STRING,
	 .is_required = true,
	 .doc = "What tells this machine from others: "
		"name=value pairs joined by commas. machine_uid is a hash."},
	{.name = "online_since",
	 .type = HTTP_STRING,
	 .is_required = true,
	 .format = "date-time",
	 .doc = "When this process started."},
	{.name = "process_kind",
	 .type = HTTP_STRING,
	 .is_required = true,
	 .example = "\"kumod\"",
	 .doc = "The role of this process: a mail transfer agent."},
	{.name = "version", .type = HTTP_STRING, .is_required = true, .doc = "Of this program."},
	{0},
};
static const struct http_schema api_machine_schema = {
	.name = "MachineInfoV1", .doc = "A node and its machine.", .fields = api_machine_fields};
static const char *const api_machine_tags[] = {"debugging", NULL};
static const struct http_answer api_machine_answers[] = {
	{200, "What is known.", "application/json", &api_machine_schema, NULL}, {0}};
static const struct http_route api_machine_routes[] = {
	{
		.method = "GET",
		.path = "/api/machine-info",
		.handler = api_machine_info,
		.id = "machine_info",
		.tags = api_machine_tags,
		.summary = "Tell which node this is and what it runs on.",
		.answers = api_machine_answers,
		.is_immediate = true,
	},
};

void api_machine_register(void)
{
	machine_read();
	http_routes_add(api_machine_routes, ARRAY_SIZE(api_machine_routes));
}
