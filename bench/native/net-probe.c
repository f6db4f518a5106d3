/*
 * What the network benchmarks run in a guest:
 *   net-probe connect ADDRESS PORT COUNT   connects so often, one after the other; prints the microseconds of each
 *   net-probe echo ADDRESS PORT COUNT      connects so often at once and sends back what comes, until the peer is done
 * and on the host, as the service at the other end of connects, one that takes next to nothing of the processors:
 *   net-probe accept ADDRESS PORT COUNT    listens (port 0: any), prints its port, and closes what connects, COUNT times
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 256, BUFFER = 16384 };

static void die(const char *what) {
	fprintf(stderr, "net-probe: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int64_t now_us(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static int socket_of(int flags) {
	int fd = socket(AF_INET, SOCK_STREAM | flags, 0);
	if (fd < 0) die("socket");
	return fd;
}

static void measure_connects(const struct sockaddr_in *to, int count) {
	/* Closed with a reset, so that no port is kept waiting. */
	struct linger hard = { 1, 0 };
	int64_t *times = calloc((size_t)count, sizeof *times);
	if (times == NULL) die("calloc");
	for (int i = 0; i < count; i++) {
		int fd = socket_of(0);
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
		int64_t began = now_us();
		if (connect(fd, (const struct sockaddr *)to, sizeof *to) < 0) die("connect");
		times[i] = now_us() - began;
		close(fd);
	}
	/* At the end: a console is work for the emulator, beside the next connect. */
	for (int i = 0; i < count; i++) printf("%lld\n", (long long)times[i]);
	free(times);
}

static void accept_all(const struct sockaddr_in *at, int count) {
	struct sockaddr_in bound;
	socklen_t length = sizeof bound;
	int fd = socket_of(0);
	if (bind(fd, (const struct sockaddr *)at, sizeof *at) < 0) die("bind");
	if (listen(fd, SOMAXCONN) < 0) die("listen");
	if (getsockname(fd, (struct sockaddr *)&bound, &length) < 0) die("getsockname");
	printf("%d\n", ntohs(bound.sin_port));
	fflush(stdout);
	for (int i = 0; i < count; i++) {
		int peer = accept(fd, NULL, NULL);
		if (peer < 0) die("accept");
		/* The client says when. */
		char end;
		while (read(peer, &end, 1) > 0);
		close(peer);
	}
}

struct connection {
	int fd;
	int ended;
	size_t from, to;
	char data[BUFFER];
};

/* False when it is over. */
static int step(struct connection *c) {
	for (;;) {
		while (c->from < c->to) {
			ssize_t n = write(c->fd, c->data + c->from, c->to - c->from);
			if (n < 0 && errno == EAGAIN) return 1;
			if (n < 0) die("write");
			c->from += (size_t)n;
		}
		if (c->ended) return 0;
		ssize_t n = read(c->fd, c->data, sizeof c->data);
		if (n < 0 && errno == EAGAIN) return 1;
		if (n < 0) die("read");
		c->from = 0;
		c->to = (size_t)n;
		c->ended = n == 0;
	}
}

static void echo(const struct sockaddr_in *to, int count) {
	int poll = epoll_create1(EPOLL_CLOEXEC);
	if (poll < 0) die("epoll_create1");
	struct connection *all = calloc((size_t)count, sizeof *all);
	if (all == NULL) die("calloc");
	for (int i = 0; i < count; i++) {
		all[i].fd = socket_of(SOCK_NONBLOCK);
		if (connect(all[i].fd, (const struct sockaddr *)to, sizeof *to) < 0 && errno != EINPROGRESS) die("connect");
		struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = &all[i] };
		if (epoll_ctl(poll, EPOLL_CTL_ADD, all[i].fd, &event) < 0) die("epoll_ctl");
	}
	for (int left = count; left > 0;) {
		struct epoll_event events[EVENTS];
		int n = epoll_wait(poll, events, EVENTS, -1);
		if (n < 0 && errno != EINTR) die("epoll_wait");
		for (int i = 0; i < n; i++) {
			struct connection *c = events[i].data.ptr;
			/* Not connected yet: there is nothing to be read or written. */
			if ((events[i].events & (EPOLLIN | EPOLLOUT)) == 0) {
				errno = ECONNREFUSED;
				if (events[i].events & EPOLLERR) die("connection");
				continue;
			}
			if (step(c)) continue;
			close(c->fd);
			left--;
		}
	}
	puts("done");
}

int main(int argc, char **argv) {
	struct sockaddr_in to = { .sin_family = AF_INET };
	if (argc != 5 || inet_pton(AF_INET, argv[2], &to.sin_addr) != 1) {
		fputs("usage: net-probe connect|echo|accept ADDRESS PORT COUNT\n", stderr);
		return 2;
	}
	to.sin_port = htons((uint16_t)atoi(argv[3]));
	int count = atoi(argv[4]);
	if (strcmp(argv[1], "connect") == 0) measure_connects(&to, count);
	else if (strcmp(argv[1], "accept") == 0) accept_all(&to, count);
	else echo(&to, count);
	return 0;
}
