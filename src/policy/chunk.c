/* chunk.c - policy source, compiled once and shared by all states as bytecode.
 *
 * Only text is read from disk: bytecode is not verified by Lua, so none but our own is ever loaded. Modules
 * are kept per epoch, keyed by what was asked for (search path and module name), so that a fresh state that
 * requires what an earlier one did touches no file, and all states of one epoch run the same code. Compiling
 * happens in a throw-away state, on whatever thread asks; reading blocks that thread, once per file and
 * epoch. */
#include "base/alloc.h"
#include "base/err.h"
#include "fiber/offload.h"
#include "policy/policy_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK_FILE_BYTES_MAX ((size_t)64 << 20)

static int chunk_read_file(const char *path, size_t max_bytes, struct buf *out)
{
	int rc = -1, fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	if (fd < 0) {
		err_set_sys(errno, "%s", path);
		return -1;
	}
	if (fstat(fd, &st) != 0 || S_ISDIR(st.st_mode)) {
		err_set_sys(S_ISDIR(st.st_mode) ? EISDIR : errno, "%s", path);
		goto out;
	}
	for (;;) {
		buf_reserve(out, 16384);
		ssize_t n = read(fd, out->p + out->n, out->cap - out->n - 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			err_set_sys(errno, "%s", path);
			goto out;
		}
		if (n == 0)
			break;
		out->n += (size_t)n;
		out->p[out->n] = 0;
		if (out->n > max_bytes) {
			err_set(ERR_LIMIT, "%s: more than %zu bytes", path, max_bytes);
			goto out;
		}
	}
	rc = 0;
out:
	close(fd);
	return rc;
}

struct chunk_read_job {
	const char *path;
	size_t max_bytes;
	struct buf *out;
};

static int chunk_run_read(void *arg)
{
	struct chunk_read_job *j = arg;
	return chunk_read_file(j->path, j->max_bytes, j->out);
}

int policy_read_file(const char *path, size_t max_bytes, struct buf *out, mono_t deadline)
{
	struct chunk_read_job j = {path, max_bytes, out};
	return offload_run(chunk_run_read, &j, deadline);
}

static int chunk_write(lua_State *L UNUSED, const void *p, size_t n, void *arg)
{
	buf_add(arg, p, n);
	return 0;
}

/* A first line that starts with # is for the shell; its line end stays, so that lines keep their numbers. */
static str_t chunk_source(const struct buf *b)
{
	str_t s = buf_str(b);
	if (str_starts(s, STR("\xef\xbb\xbf")))
		s = str_skip(s, 3);
	if (s.n > 0 && s.p[0] == '#') {
		ptrdiff_t end = str_chr(s, '\n', 0);
		s = str_skip(s, end < 0 ? s.n : (size_t)end);
	}
	return s;
}

struct chunk *chunk_new(const char *path)
{
	struct buf source = BUF_INIT, code = BUF_INIT;
	struct chunk *c = NULL;
	char *name = NULL;
	lua_State *L = NULL;
	if (chunk_read_file(path, CHUNK_FILE_BYTES_MAX, &source) != 0)
		goto out;
	L = luaL_newstate();
	if (L == NULL)
		panic("out of memory for a Lua state");
	name = xasprintf("@%s", path);
	str_t text = chunk_source(&source);
	if (luaL_loadbufferx(L, text.n != 0 ? text.p : "", text.n, name, "t") != LUA_OK) {
		err_set(ERR_LUA, "syntax error: %s", lua_tostring(L, -1));
		goto out;
	}
	lua_dump(L, chunk_write, &code, 0);
	c = xnew(struct chunk);
	atomic_init(&c->refs, 1);
	c->path = xstrdup(path);
	c->code = buf_steal(&code, &c->n_bytes);
out:
	if (L != NULL)
		lua_close(L);
	free(name);
	buf_fini(&source);
	buf_fini(&code);
	return c;
}

void chunk_unref(struct chunk *c)
{
	if (c == NULL || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
		return;
	free(c->key);
	free(c->path);
	free(c->code);
	free(c);
}

int chunk_push(const struct chunk *c, lua_State *L)
{
	/* The name is inside the bytecode; this one would show only for bytecode without. */
	if (luaL_loadbufferx(L, c->code, c->n_bytes, "=policy", "b") == LUA_OK)
		return 0;
	err_set(ERR_LUA, "%s: %s", c->path, lua_tostring(L, -1));
	lua_pop(L, 1);
	return -1;
}

struct chunk *chunk_cache_find(str_t key)
{
	pthread_mutex_lock(&policy_self.lock);
	struct chunk *c = map_find(&policy_self.modules, key);
	if (c != NULL)
		atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
	pthread_mutex_unlock(&policy_self.lock);
	return c;
}

void chunk_cache_add(struct chunk *c, str_t key, uint64_t epoch)
{
	pthread_mutex_lock(&policy_self.lock);
	if (epoch == atomic_load(&policy_self.epoch) && map_find(&policy_self.modules, key) == NULL) {
		c->key = str_dup(key);
		c->key_bytes = key.n;
		atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
		map_put(&policy_self.modules, str_mk(c->key, key.n), c);
	}
	pthread_mutex_unlock(&policy_self.lock);
}

void chunk_cache_clear_locked(void)
{
	size_t pos = 0;
	void *c;
	while (map_next(&policy_self.modules, &pos, NULL, &c)) {
		map_remove(&policy_self.modules,
			   str_mk(((struct chunk *)c)->key, ((struct chunk *)c)->key_bytes));
		chunk_unref(c);
	}
	map_fini(&policy_self.modules);
}
