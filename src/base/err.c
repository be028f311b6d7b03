/* err.c - the error slot. err_slot points at the slot of whatever runs on this thread: the fiber's, which the
 * scheduler puts there at each switch (err_slot_swap), or else the thread's own. With no error in it a slot
 * costs nothing: success never touches it. Texts are formatted before the old one is released, so an error
 * may quote the one it replaces. A thread's own slot is emptied when the thread ends. */
#include "base/err.h"

#include "base/alloc.h"

#include <pthread.h>
#include <stdlib.h>

static __thread struct err err_thread_slot;
static __thread struct err *err_current; /* NULL until first used: then the thread's own */

static pthread_key_t err_thread_key;

static void err_thread_end(void *slot)
{
	err_fini(slot);
}

static __attribute__((constructor)) void err_key_init(void)
{
	if (pthread_key_create(&err_thread_key, err_thread_end) != 0)
		panic("err: no thread key left");
}

static inline struct err *err_slot(void)
{
	struct err *slot = err_current;
	if (UNLIKELY(slot == NULL)) {
		slot = err_current = &err_thread_slot;
		pthread_setspecific(err_thread_key, &err_thread_slot);
	}
	return slot;
}

static void err_fill(const char *file, int line, enum err_kind kind, int sys_errno, int code, char *text)
{
	struct err *slot = err_slot();
	free(slot->text);
	*slot = (struct err){
		.kind = kind, .sys_errno = sys_errno, .code = code, .file = file, .line = line, .text = text};
}

void err_set_at(const char *file, int line, enum err_kind kind, int sys_errno, const char *fmt, ...)
{
	struct buf text = BUF_INIT;
	va_list ap;
	if (UNLIKELY(kind == ERR_NONE))
		panic_at(file, line, "err: an error of kind ERR_NONE");
	va_start(ap, fmt);
	buf_vprintf(&text, fmt, ap);
	va_end(ap);
	if (sys_errno != 0) {
		char small[128];
		buf_printf(&text, ": %s", strerror_r(sys_errno, small, sizeof(small)));
	}
	err_fill(file, line, kind, sys_errno, 0, buf_steal(&text, NULL));
}

void err_set_reject(int code, str_t text)
{
	err_fill(__FILE__, __LINE__, ERR_REJECT, 0, code, str_dup(text));
}

void err_wrap(const char *fmt, ...)
{
	struct err *slot = err_slot();
	struct buf text = BUF_INIT;
	va_list ap;
	if (slot->kind == ERR_NONE)
		return;
	va_start(ap, fmt);
	buf_vprintf(&text, fmt, ap);
	va_end(ap);
	buf_add_z(&text, ": ");
	buf_add_z(&text, slot->text);
	free(slot->text);
	slot->text = buf_steal(&text, NULL);
}

bool err_is(enum err_kind kind)
{
	return err_slot()->kind == kind;
}

enum err_kind err_kind(void)
{
	return err_slot()->kind;
}

const char *err_text(void)
{
	const struct err *slot = err_slot();
	return slot->kind != ERR_NONE ? slot->text : "no error";
}

struct err err_take(void)
{
	struct err *slot = err_slot(), e = *slot;
	*slot = (struct err){0};
	return e;
}

void err_put(struct err e)
{
	struct err *slot = err_slot();
	free(slot->text);
	*slot = e;
}

void err_clear(void)
{
	err_fini(err_slot());
}

void err_fini(struct err *e)
{
	free(e->text);
	*e = (struct err){0};
}

const char *err_kind_name(enum err_kind kind)
{
	static const char *const name[] = {
		[ERR_NONE] = "none",
		[ERR_TIMEOUT] = "timeout",
		[ERR_CANCELLED] = "cancelled",
		[ERR_IO] = "io",
		[ERR_CLOSED] = "closed",
		[ERR_CONNECT] = "connect",
		[ERR_DNS] = "dns",
		[ERR_PROTO] = "protocol",
		[ERR_INVALID] = "invalid",
		[ERR_LIMIT] = "limit",
		[ERR_NOT_FOUND] = "not-found",
		[ERR_EXISTS] = "exists",
		[ERR_SPOOL_FULL] = "spool-full",
		[ERR_CORRUPT] = "corrupt",
		[ERR_LUA] = "lua",
		[ERR_REJECT] = "reject",
		[ERR_SHUTDOWN] = "shutdown",
		[ERR_UNSUPPORTED] = "unsupported",
	};
	return (size_t)kind < ARRAY_SIZE(name) && name[kind] != NULL ? name[kind] : "unknown";
}

struct err *err_slot_swap(struct err *slot)
{
	struct err *was = err_slot();
	err_current = slot != NULL ? slot : &err_thread_slot;
	return was;
}
