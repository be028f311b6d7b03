/* smtp_sink.c - the least SMTP server that a client can deliver to: epoll, PIPELINING, everything accepted
 * and dropped. Prints `listening on PORT`, then a count of messages at SIGTERM. For measurements only. Usage:
 * smtp_sink [PORT] */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

struct conn {
	int fd;
	bool in_data;
	size_t n;
	char buf[65536];
};

static volatile sig_atomic_t is_stopping;
static unsigned long n_messages;

static void on_term(int sig)
{
	is_stopping = 1;
}

static void conn_close(struct conn *c)
{
	close(c->fd);
	free(c);
}

/** Handles what is buffered; false when the connection is to be closed. */
static bool conn_run(struct conn *c)
{
	char out[8192];
	size_t n_out = 0, pos = 0;
	bool is_open = true;
	while (is_open && pos < c->n) {
		char *p = c->buf + pos, *end = c->buf + c->n;
		const char *answer = "250 ok\r\n";
		if (c->in_data) {
			char *dot = end - p >= 3 && memcmp(p, ".\r\n", 3) == 0
					    ? p
					    : memmem(p, (size_t)(end - p), "\r\n.\r\n", 5);
			if (dot == NULL) { /* keep what may be the beginning of the end */
				size_t keep = end - p < 4 ? (size_t)(end - p) : 4;
				pos = c->n - keep;
				break;
			}
			pos = (size_t)(dot - c->buf) + (dot == p && *p == '.' ? 3 : 5);
			c->in_data = false;
			n_messages++;
		} else {
			char *lf = memchr(p, '\n', (size_t)(end - p));
			if (lf == NULL)
				break;
			pos = (size_t)(lf - c->buf) + 1;
			if (strncasecmp(p, "EHLO", 4) == 0) {
				answer = "250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n";
			} else if (strncasecmp(p, "DATA", 4) == 0) {
				answer = "354 go\r\n";
				c->in_data = true;
			} else if (strncasecmp(p, "QUIT", 4) == 0) {
				answer = "221 bye\r\n";
				is_open = false;
			}
		}
		size_t len = strlen(answer);
		if (n_out + len > sizeof(out))
			return false;
		memcpy(out + n_out, answer, len);
		n_out += len;
	}
	memmove(c->buf, c->buf + pos, c->n - pos);
	c->n -= pos;
	if (n_out > 0 && write(c->fd, out, n_out) != (ssize_t)n_out)
		return false;
	return is_open && c->n < sizeof(c->buf);
}

static void sink_accept(int ep, int lfd)
{
	for (int fd; (fd = accept4(lfd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
		struct conn *c = calloc(1, sizeof(*c));
		int one = 1;
		if (c == NULL)
			abort();
		c->fd = fd;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
		if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) != 0 || write(fd, "220 sink\r\n", 10) != 10)
			conn_close(c);
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_port = htons(argc > 1 ? (uint16_t)atoi(argv[1]) : 0),
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);
	int lfd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0),
	    ep = epoll_create1(EPOLL_CLOEXEC), one = 1;
	struct epoll_event ev = {.events = EPOLLIN}, got[256];
	struct sigaction sa = {.sa_handler = on_term};
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	setsockopt(lfd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(lfd, (struct sockaddr *)&a, sizeof(a)) != 0 || listen(lfd, 1024) != 0 ||
	    epoll_ctl(ep, EPOLL_CTL_ADD, lfd, &ev) != 0 ||
	    getsockname(lfd, (struct sockaddr *)&a, &len) != 0) {
		perror("smtp_sink");
		return 1;
	}
	printf("listening on %d\n", ntohs(a.sin_port));
	fflush(stdout);
	while (!is_stopping) {
		int n = epoll_wait(ep, got, 256, 1000);
		for (int i = 0; i < n; i++) {
			struct conn *c = got[i].data.ptr;
			if (c == NULL) {
				sink_accept(ep, lfd);
				continue;
			}
			ssize_t r = read(c->fd, c->buf + c->n, sizeof(c->buf) - c->n);
			if (r < 0 && (errno == EAGAIN || errno == EINTR))
				continue;
			if (r > 0)
				c->n += (size_t)r;
			if (r <= 0 || !conn_run(c))
				conn_close(c);
		}
	}
	printf("messages %lu\n", n_messages);
	return 0;
}
