/* stderr_capture.h - what the process writes to stderr, kept in memory while a test looks at it. */
#pragma once

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct stderr_capture {
	int fd, saved_fd;
};

static inline void stderr_capture_begin(struct stderr_capture *c)
{
	c->fd = memfd_create("stderr", 0);
	c->saved_fd = dup(STDERR_FILENO);
	if (c->fd < 0 || c->saved_fd < 0 || dup2(c->fd, STDERR_FILENO) < 0)
		abort();
}

/* How often the text occurs in what was written so far. */
static inline int stderr_capture_count(const struct stderr_capture *c, const char *text)
{
	static _Thread_local char all[65536];
	ssize_t n = pread(c->fd, all, sizeof(all) - 1, 0);
	int count = 0;
	all[n > 0 ? n : 0] = 0;
	for (const char *p = all; (p = strstr(p, text)) != NULL; p++)
		count++;
	return count;
}

static inline void stderr_capture_end(struct stderr_capture *c)
{
	char line[4096];
	dup2(c->saved_fd, STDERR_FILENO);
	for (off_t at = 0;;) { /* shown all the same */
		ssize_t n = pread(c->fd, line, sizeof(line), at);
		if (n <= 0 || write(STDERR_FILENO, line, (size_t)n) < 0)
			break;
		at += n;
	}
	close(c->fd);
	close(c->saved_fd);
}
