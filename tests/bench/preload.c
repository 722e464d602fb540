/* Preloaded into the load generators (LD_PRELOAD), which know neither of the two things that the measurement needs:
 *
 * - every connection begins with a PROXY protocol version 2 header, as the parent writes it; the client's address in it is another
 *   one each time, from 198.18.0.0/15 (RFC 2544: reserved for benchmarks);
 * - every TLS handshake is a full one: SSL_clear keeps the session of the connection before, and wrk would resume it.
 *
 * connect(2) is made to wait for the connection, which is one on the loopback, so that the header is its first bytes. They go out at
 * once: what is behind them would wait for their acknowledgement, 40 ms, which no server is to blame for.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static unsigned int connections;

int connect(int fd, const struct sockaddr *address, socklen_t size)
{
	static int (*next)(int, const struct sockaddr *, socklen_t);
	if (!next)
		next = (int (*)(int, const struct sockaddr *, socklen_t))dlsym(RTLD_NEXT, "connect");
	int type = 0;
	socklen_t type_size = sizeof type;
	getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_size);
	if (address->sa_family != AF_INET || type != SOCK_STREAM)
		return next(fd, address, size);

	int flags = fcntl(fd, F_GETFL);
	fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
	int failed = next(fd, address, size), at_once = 1;
	if (!failed) {
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &at_once, sizeof at_once);
		const struct sockaddr_in *server = (const struct sockaddr_in *)address;
		unsigned char header[28] = "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c";
		unsigned int number = __sync_add_and_fetch(&connections, 1);
		unsigned int client = htonl(0xc6120000u | (number & 0x1ffffu));
		unsigned short port = htons((unsigned short)(1024 + number % 60000));
		memcpy(header + 16, &client, 4);
		memcpy(header + 20, &server->sin_addr, 4);
		memcpy(header + 24, &port, 2);
		memcpy(header + 26, &server->sin_port, 2);
		if (send(fd, header, sizeof header, MSG_NOSIGNAL) != (ssize_t)sizeof header)
			failed = -1;
	}
	int kept = errno;
	fcntl(fd, F_SETFL, flags);
	errno = kept;
	return failed;
}

int SSL_clear(void *connection)
{
	static int (*next)(void *);
	static int (*set_session)(void *, void *);
	if (!next) {
		next = (int (*)(void *))dlsym(RTLD_NEXT, "SSL_clear");
		set_session = (int (*)(void *, void *))dlsym(RTLD_NEXT, "SSL_set_session");
	}
	int cleared = next(connection);
	set_session(connection, NULL);
	return cleared;
}
