/* err.h - the error slot. A fallible function returns -1/NULL and has filled the slot of the running fiber
 * (of the thread, outside fibers). Every error is consumed once: propagated as it is, wrapped, or taken and
 * recorded. Setting replaces what is there. The slot is owned by whoever runs; see err_slot_swap. */
#pragma once

#include "base/buf.h"

enum err_kind {
	ERR_NONE = 0,
	ERR_TIMEOUT,   /* the deadline passed */
	ERR_CANCELLED, /* the fiber was cancelled */
	ERR_IO,	       /* the operating system said no; err.sys_errno tells */
	ERR_CLOSED,    /* the peer closed or reset the connection */
	ERR_CONNECT,   /* no connection could be made */
	ERR_DNS,       /* the resolver could not find out (SERVFAIL, time-out...) */
	ERR_PROTO,     /* the peer broke the protocol */
	ERR_INVALID,   /* bad input; the text names it */
	ERR_LIMIT,     /* a configured limit was exceeded */
	ERR_NOT_FOUND,
	ERR_EXISTS,
	ERR_SPOOL_FULL,	 /* no space on the spool's file system: temporary */
	ERR_CORRUPT,	 /* stored data failed its check */
	ERR_LUA,	 /* a Lua error; text holds message and traceback */
	ERR_REJECT,	 /* kumo.reject(code, text): err.code, err.text */
	ERR_SHUTDOWN,	 /* the process is stopping */
	ERR_UNSUPPORTED, /* known, but not available in this build or state */
};

struct err {
	enum err_kind kind;
	int sys_errno;	  /* 0 when none */
	int code;	  /* ERR_REJECT: the SMTP code; otherwise 0 */
	const char *file; /* static */
	int line;
	char *text; /* heap; NULL only when kind is ERR_NONE */
};

/** Fill the slot. err_set_sys appends ": <strerror>" and keeps errno's value. */
#define err_set(kind, ...) err_set_at(__FILE__, __LINE__, kind, 0, __VA_ARGS__)
#define err_set_sys(sys_errno, ...) err_set_at(__FILE__, __LINE__, ERR_IO, sys_errno, __VA_ARGS__)
void err_set_at(const char *file, int line, enum err_kind kind, int sys_errno, const char *fmt, ...)
	PRINTF_LIKE(5, 6);
void err_set_reject(int code, str_t text);
/** Prepends "<text>: " to the error in the slot; kind and errno stay. Nothing when the slot is empty. */
void err_wrap(const char *fmt, ...) PRINTF_LIKE(1, 2);
bool err_is(enum err_kind kind); /* peeks */
enum err_kind err_kind(void);
const char *err_text(void); /* peeks; "no error" when empty */
/** Empties the slot and hands the error to the caller, who err_fini()s it. */
struct err err_take(void);
/** Puts a taken error back (moves it). */
void err_put(struct err e);
void err_clear(void);
void err_fini(struct err *e);
const char *err_kind_name(enum err_kind kind);

/** The scheduler's: makes `slot` (NULL: the thread's own)
 * the running context's slot, returns the one before. */
struct err *err_slot_swap(struct err *slot);
