/* http_load.c - posts N messages of SIZE bytes to /api/inject/v1 over C kept connections, one request in
 * flight on each, and prints how long the answers took. With KEYS each has an Idempotency-Key that begins so.
 * Usage: http_load PORT N C SIZE DOMAIN [KEYS] */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct conn {
	int fd;
	size_t n;
	char buf[4096];
};

static long n_wanted, n_sent, n_ok, n_bad;
static char *body_tail; /* JSON after the recipient's number */
static size_t n_tail;
static const char *domain, *keys; /* keys: NULL without */

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void write_all(int fd, const char *p, size_t n)
{
	while (n > 0) {
		ssize_t w = write(fd, p, n);
		if (w <= 0)
			die("write");
		p += w;
		n -= (size_t)w;
	}
}

static void conn_send(struct conn *c)
{
	static char req[1 << 20];
	char head[256], key[128] = "";
	if (n_sent == n_wanted)
		return;
	int n_head = snprintf(
		head, sizeof(head),
		"{\"envelope_sender\":\"bench@example.com\",\"recipients\":[{\"email\":\"u%ld@%s\"}],",
		n_sent, domain);
	if (keys != NULL)
		snprintf(key, sizeof(key), "Idempotency-Key: %s-%ld\r\n", keys, n_sent);
	int n = snprintf(req, sizeof(req),
			 "POST /api/inject/v1 HTTP/1.1\r\nHost: bench\r\nContent-Type: "
			 "application/json\r\n%sContent-Length: %zu\r\n\r\n%s",
			 key, (size_t)n_head + n_tail, head);
	memcpy(req + n, body_tail, n_tail);
	n_sent++;
	write_all(c->fd, req, (size_t)n + n_tail);
}

/** True when the whole answer is in. */
static bool conn_has_answer(struct conn *c)
{
	c->buf[c->n] = 0;
	char *end = strstr(c->buf, "\r\n\r\n");
	if (end == NULL)
		return false;
	char *cl = strcasestr(c->buf, "content-length:");
	if (cl == NULL || cl > end || (size_t)(end + 4 - c->buf) + strtoul(cl + 15, NULL, 10) > c->n)
		return false;
	if (strncmp(c->buf, "HTTP/1.1 200", 12) == 0 && strstr(end, "\"success_count\":1") != NULL)
		n_ok++;
	else if (n_bad++ == 0)
		fprintf(stderr, "first bad answer: %s\n", c->buf);
	c->n = 0;
	return true;
}

int main(int argc, char **argv)
{
	if (argc != 6 && argc != 7) {
		fprintf(stderr, "usage: http_load PORT N CONNECTIONS SIZE DOMAIN [KEYS]\n");
		return 2;
	}
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_port = htons((uint16_t)atoi(argv[1])),
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	long n_conns = atol(argv[3]), size = atol(argv[4]);
	n_wanted = atol(argv[2]);
	domain = argv[5];
	keys = argv[6];
	if (n_conns < 1 || size < 64 || size > 500000)
		return 2;
	body_tail = malloc((size_t)size * 2 + 256);
	char *p = body_tail;
	p += sprintf(p, "\"content\":\"Subject: bench\\r\\nFrom: bench@example.com\\r\\n\\r\\n");
	for (long done = 48; done < size; done += 72)
		p += sprintf(p,
			     "This line is seventy characters long and stands for the text of mail.\\r\\n");
	p += sprintf(p, "\"}");
	n_tail = (size_t)(p - body_tail);

	int ep = epoll_create1(0);
	double start = now();
	for (long i = 0; i < n_conns; i++) {
		struct conn *c = calloc(1, sizeof(*c));
		int one = 1;
		c->fd = socket(AF_INET, SOCK_STREAM, 0);
		if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&a, sizeof(a)) != 0)
			die("connect");
		setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
		epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &ev);
		conn_send(c);
	}
	while (n_ok + n_bad < n_wanted) {
		struct epoll_event got[256];
		int n = epoll_wait(ep, got, 256, 30000);
		if (n == 0) {
			fprintf(stderr, "no answer for 30 s\n");
			return 1;
		}
		for (int i = 0; i < n; i++) {
			struct conn *c = got[i].data.ptr;
			ssize_t r = read(c->fd, c->buf + c->n, sizeof(c->buf) - 1 - c->n);
			if (r <= 0)
				die("read");
			c->n += (size_t)r;
			if (conn_has_answer(c))
				conn_send(c);
		}
	}
	printf("ok %ld bad %ld seconds %.3f\n", n_ok, n_bad, now() - start);
	return n_bad == 0 ? 0 : 1;
}
