/* node_id.c - see node_id.h. The file is written under a temporary name and linked into place, so that two
 * processes that start together agree on one id: the loser of the link reads the winner's. */
#include "record/node_id.h"

#include "base/alloc.h"
#include "base/err.h"
#include "base/log.h"
#include "base/uuid.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define NODE_ID_PATH "/opt/kumomta/etc/.nodeid"

static char node_id_text[37] = "00000000-0000-0000-0000-000000000000";

const char *node_id(void)
{
	return node_id_text;
}

/* The UUID in text, alone or in JSON quotes. */
static bool node_id_parse(str_t text, struct uuid *id)
{
	text = str_trim(text);
	if (text.n >= 2 && text.p[0] == '"' && text.p[text.n - 1] == '"')
		text = str_mk(text.p + 1, text.n - 2);
	return uuid_parse(text, id);
}

/* 1: read; 0: there is no such file; -1. */
static int node_id_read(const char *path, struct uuid *id)
{
	char text[256];
	int rc = -1;
	ssize_t n = -1;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
		return 0;
	if (fd >= 0)
		n = read(fd, text, sizeof(text));
	if (n < 0)
		err_set_sys(errno, "reading the node id from %s", path);
	else if (!node_id_parse(str_mk(text, (size_t)n), id))
		err_set(ERR_INVALID, "%s does not hold a node id: a UUID is expected", path);
	else
		rc = 1;
	if (fd >= 0)
		close(fd);
	return rc;
}

static void node_id_make_parents(const char *path)
{
	char *dir = xstrdup(path);
	for (char *p = strchr(dir + (dir[0] == '/'), '/'); p != NULL; p = strchr(p + 1, '/')) {
		*p = '\0';
		(void)mkdir(dir, 0755); /* a failure shows when the file is made */
		*p = '/';
	}
	free(dir);
}

/* 0: made, or somebody else made it first; -1. */
static int node_id_create(const char *path, const struct uuid *id)
{
	char text[38];
	char *tmp = xasprintf("%s.%ld", path, (long)getpid());
	int rc = -1;
	node_id_make_parents(path);
	(void)unlink(tmp); /* of a process with our number that died here */
	int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0) {
		err_set_sys(errno, "creating the node id file %s", path);
		goto out;
	}
	uuid_fmt_dashed(id, text);
	text[36] = '\n';
	if (write(fd, text, 37) != 37 || fsync(fd) != 0 || (link(tmp, path) != 0 && errno != EEXIST))
		err_set_sys(errno, "creating the node id file %s", path);
	else
		rc = 0;
	close(fd);
	(void)unlink(tmp);
out:
	free(tmp);
	return rc;
}

/* The same at each start on this machine, but not its machine-id itself, which is nobody's business
 * (machine-id(5)). */
static void node_id_derive(struct uuid *id)
{
	char text[64] = "";
	uint64_t h[2] = {UINT64_C(0xcbf29ce484222325), UINT64_C(0x84222325cbf29ce4)};
	FILE *f = fopen("/etc/machine-id", "re");
	if (f == NULL || fgets(text, sizeof(text), f) == NULL)
		snprintf(text, sizeof(text), "host-%08lx", gethostid());
	if (f != NULL)
		fclose(f);
	for (int pass = 0; pass < 4; pass++) { /* FNV-1a, twice from different starts */
		for (const char *p = text; *p != '\0'; p++) {
			for (int i = 0; i < 2; i++)
				h[i] = (h[i] ^ (uint8_t)*p) * UINT64_C(0x100000001b3);
		}
		h[0] ^= h[1] >> 29;
	}
	memcpy(id->b, h, 16);
	id->b[6] = (uint8_t)((id->b[6] & 0x0f) | 0x80); /* version 8: custom (RFC 9562) */
	id->b[8] = (uint8_t)((id->b[8] & 0x3f) | 0x80);
}

int node_id_init(void)
{
	struct uuid id;
	const char *env = getenv("KUMO_NODE_ID");
	const char *path = getenv("KUMO_NODE_ID_PATH");
	if (env != NULL && env[0] != '\0') {
		if (!node_id_parse(str_of(env), &id)) {
			err_set(ERR_INVALID, "KUMO_NODE_ID=%s is not a UUID", env);
			return -1;
		}
		goto found;
	}
	if (path == NULL || path[0] == '\0')
		path = NODE_ID_PATH;
	int rc = node_id_read(path, &id);
	if (rc == 0) {
		id = uuid_new_v4();
		if (node_id_create(path, &id) == 0) {
			rc = node_id_read(path, &id);
		} else {
			struct err e = err_take();
			node_id_derive(&id);
			log_warn("kumod", "%s; the node id is derived from the machine's", e.text);
			err_fini(&e);
			rc = 1;
		}
	}
	if (rc < 0)
		return -1;
found:
	uuid_fmt_dashed(&id, node_id_text);
	return 0;
}
