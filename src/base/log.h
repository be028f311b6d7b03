/* log.h - the diagnostic log, on stderr: `2026-11-23T02:33:32.296530Z  INFO worker-0 target:
 * text`, a line a call. (Message records are src/record.) Thread-safe; never blocks on
 * anything but the write(2) itself. The filter is `target=level` directives joined by
 * commas, a bare level is the default; the longest matching target wins (a directive matches
 * targets it is a prefix of: "kumod" also matches "kumod::smtp"). A target without a level
 * means trace; `target[span{field=value}]=level` is taken, the part in brackets has no
 * effect. Targets that no directive matches log errors only, unless there is a bare level. */
#pragma once

#include "base/str.h"

#include <stdatomic.h>

enum log_level { LOG_OFF, LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG, LOG_TRACE };

#define log_error(target, ...) log_at(LOG_ERROR, target, __VA_ARGS__)
#define log_warn(target, ...) log_at(LOG_WARN, target, __VA_ARGS__)
#define log_info(target, ...) log_at(LOG_INFO, target, __VA_ARGS__)
#define log_debug(target, ...) log_at(LOG_DEBUG, target, __VA_ARGS__)
#define log_trace(target, ...) log_at(LOG_TRACE, target, __VA_ARGS__)
#define log_at(level, target, ...)                                                                \
	do {                                                                                      \
		if ((int)(level) <= atomic_load_explicit(&log_max_level, memory_order_relaxed) && \
		    log_is_enabled(level, target))                                                \
			log_write(level, target, __VA_ARGS__);                                    \
	} while (0)

/** The highest level any target is enabled for; log.c's to write. */
extern atomic_int log_max_level;
bool log_is_enabled(enum log_level level, const char *target);
/** Control bytes in the text other than TAB and LF are written as \xHH. */
void log_write(enum log_level level, const char *target, const char *fmt, ...) PRINTF_LIKE(3, 4);
/** Replaces the whole filter; -1 ERR_INVALID names the directive. Default: info for kumod and lua, warn
 * otherwise. */
MUST_CHECK int log_set_filter(str_t filter);
void log_set_thread_name(const char *name); /* at most 15 bytes; shown in each line */
