/*
 * morsel pager: a process that has a pool attached, so that the pool lives and has a pager, and
 * that does nothing else. The work is the library's; here it is seen to that it goes on until a
 * signal says otherwise, and the pool is handed to whoever asks at a socket.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <morsel/pager.h>

#include "commands.h"

#define LOOK_S 1 /* how often to look who is pager */

static volatile sig_atomic_t ended;

static void on_end(int signal)
{
	(void)signal;
	ended = 1;
}

struct service {
	const struct command *self;
	const char *serve; /* path of the socket at which the pool is handed out, or NULL */
	int listener;
	int64_t pager; /* who was it when we last looked */
	int failure;   /* what was complained of last */
};

/* ---- sockets ---- */

static int socket_name(const struct command *self, const char *path, struct sockaddr_un *name)
{
	*name = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof(name->sun_path)) {
		complain(self, "%s: a socket's path has at most %zu bytes", path,
			 sizeof(name->sun_path) - 1);
		return EXIT_FAILED;
	}
	strcpy(name->sun_path, path);
	return EXIT_OK;
}

static int failed(const struct command *self, const char *what, const char *path)
{
	complain(self, "%s %s: %s", what, path, strerror(errno));
	return EXIT_FAILED;
}

static int listen_at(struct service *s)
{
	struct sockaddr_un name;

	if (socket_name(s->self, s->serve, &name) != EXIT_OK)
		return EXIT_FAILED;
	s->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->listener < 0)
		return failed(s->self, "a socket for", s->serve);
	umask(0177);
	if (bind(s->listener, (struct sockaddr *)&name, sizeof(name)) ||
	    listen(s->listener, SOMAXCONN))
		return failed(s->self, "cannot listen at", s->serve);
	return EXIT_OK;
}

static void hand_out(struct service *s, struct morsel_pool *pool)
{
	int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		return;
	if (morsel_pool_send(pool, fd) < 0)
		complain(s->self, "%s", morsel_errormsg());
	close(fd);
}

/* ---- the service ---- */

/* Says who is pager whenever that has changed, and complains once of what is in the way. */
static void look(struct service *s, const struct args *args, struct morsel_pool *pool)
{
	int64_t pager = morsel_pool_pager(pool);

	if (pager > 0 && pager != s->pager) {
		printf("pager %lld %s\n", (long long)pager, args->pool);
		fflush(stdout);
		s->pager = pager;
	}
	if (pager < 0 && pager != s->failure)
		complain_library(s->self, (int)pager);
	s->failure = pager < 0 ? (int)pager : 0;
}

static int serve(struct service *s, const struct args *args, struct morsel_pool *pool)
{
	struct sigaction action = {.sa_handler = on_end};
	sigset_t signals, before;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigprocmask(SIG_BLOCK, &signals, &before);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	if (s->serve && listen_at(s) != EXIT_OK)
		return EXIT_FAILED;
	look(s, args, pool);
	if (s->failure && s->failure != -ETIMEDOUT)
		return EXIT_FAILED;
	while (!ended) {
		struct pollfd from = {.fd = s->listener, .events = POLLIN};
		struct timespec rest = {.tv_sec = LOOK_S};

		if (ppoll(&from, 1, &rest, &before) > 0)
			hand_out(s, pool);
		else if (!ended)
			look(s, args, pool);
	}
	return EXIT_OK;
}

/* Two descriptors for each process that is attached. */
static void raise_limit(void)
{
	struct rlimit limit;

	if (!getrlimit(RLIMIT_NOFILE, &limit) && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

/* A pool that somebody hands out at a socket: it may have no other name. */
static int receive(const struct command *self, const char *path, struct morsel_pool **pool)
{
	struct sockaddr_un name;
	int fd, rc;

	if (socket_name(self, path, &name) != EXIT_OK)
		return EXIT_FAILED;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&name, sizeof(name))) {
		rc = failed(self, "cannot connect to", path);
	} else {
		rc = morsel_pool_receive(fd, NULL, pool);
		rc = rc < 0 ? complain_library(self, rc) : EXIT_OK;
	}
	if (fd >= 0)
		close(fd);
	return rc;
}

int pager_run(const struct command *self, int argc, char **argv)
{
	struct service s = {.self = self, .listener = -1};
	const struct option_spec options[] = {
		{'s', "serve", "SOCKET", OPTION_TEXT, &s.serve,
		 "hand the pool to whoever connects to this Unix socket"},
	};
	struct morsel_pool *pool;
	struct args args;
	struct stat st;
	int code = args_read(self, options, array_length(options), argc, argv, &args);

	if (code != ARGS_RUN)
		return code;
	raise_limit();
	if (!stat(args.pool, &st) && S_ISSOCK(st.st_mode))
		code = receive(self, args.pool, &pool);
	else
		code = open_pool(self, &args, 0, &pool);
	if (code != EXIT_OK)
		return code;
	code = serve(&s, &args, pool);
	if (s.listener >= 0) {
		close(s.listener);
		if (code == EXIT_OK)
			unlink(s.serve);
	}
	morsel_pool_close(pool);
	return code;
}
