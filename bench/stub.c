/* The vendor of the benchmark: one thread, one epoll loop, fixed OpenAI answers, so that it is never what limits a run.
 *
 *   POST /v1/chat/completions   JSON, or server-sent events when the body holds "stream": true
 *   GET  /v1/models             one model
 *
 * The number in the model's name is the number of content events of a stream: "flood-2000" and "stream-8" come as fast
 * as the client reads, "paced-20" one by one 10 ms apart, "steady-2000" eight at once every 4 ms, as an inference server
 * with many streams in one batch sends them. A late stub does not catch up: the size of what the client reads stays the
 * same. Keep-alive yes; pipelining and chunked request bodies no.
 * Prints its port in one line, and ends with its parent. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_CONNECTIONS 4096 /* also the highest file descriptor */
#define MAX_REQUEST (8u << 20)
#define BURST 16 /* events written to one connection before the others get their turn */
#define PACED_NS 10000000ull
#define STEADY_NS 4000000ull

#define ID "\"id\":\"chatcmpl-BenchA1b2C3d4E5f6G7h8I9j0K\""
#define EVENT "{" ID ",\"object\":\"chat.completion.chunk\",\"created\":1763683200,\"model\":\"bench-2026-11-01\"," \
              "\"service_tier\":\"default\",\"system_fingerprint\":\"fp_5b26d85e12\","
#define CHOICE(delta, reason) "\"choices\":[{\"index\":0,\"delta\":" delta ",\"logprobs\":null,\"finish_reason\":" reason "}]"
#define DETAILS "\"prompt_tokens_details\":{\"cached_tokens\":0,\"audio_tokens\":0},\"completion_tokens_details\":" \
                "{\"reasoning_tokens\":0,\"audio_tokens\":0,\"accepted_prediction_tokens\":0,\"rejected_prediction_tokens\":0}"

static const char ANSWER[] =
    "{" ID ",\"object\":\"chat.completion\",\"created\":1763683200,\"model\":\"bench-2026-11-01\",\"choices\":[{\"index\":0,"
    "\"message\":{\"role\":\"assistant\",\"content\":\"A relay passes on what it is given. A gateway also asks who is asking, "
    "how much they may have, and writes down what it cost.\",\"refusal\":null,\"annotations\":[]},\"logprobs\":null,"
    "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":31,\"completion_tokens\":28,\"total_tokens\":59," DETAILS "},"
    "\"service_tier\":\"default\",\"system_fingerprint\":\"fp_5b26d85e12\"}";
static const char MODELS[] = "{\"object\":\"list\",\"data\":[{\"id\":\"bench-2026-11-01\",\"object\":\"model\",\"created\":1763683200,"
                             "\"owned_by\":\"bench\"}]}";
static const char NO_SUCH_ROUTE[] = "{\"error\":{\"message\":\"The stub has no such route.\",\"type\":\"invalid_request_error\","
                                    "\"param\":null,\"code\":null}}";
static const char UNREADABLE[] = "{\"error\":{\"message\":\"The stub needs a Content-Length.\",\"type\":\"invalid_request_error\","
                                 "\"param\":null,\"code\":null}}";
static const char STREAM_HEAD[] = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                                  "x-request-id: req_bench\r\ntransfer-encoding: chunked\r\n\r\n";
static const char *WORDS[] = {" a", " gateway", " that", " counts", ",", " and", " forgets", " nothing"};
enum { WORD_COUNT = sizeof WORDS / sizeof *WORDS };

struct piece {
    char text[3072];
    size_t length;
};

static struct piece answer, models, no_such_route, unreadable, opening, closing, finish, words[WORD_COUNT], all_words;

struct connection {
    bool open, streaming;
    char *request;
    size_t received, capacity;
    const char *out; /* the unsent rest of the current piece */
    size_t left;
    struct piece usage; /* the only event that depends on the request */
    unsigned contents, steps, sent; /* a step is one write: one word, or all of them at once */
    uint64_t pace_ns, due_ns;
    uint32_t interest;
};

static struct connection connections[MAX_CONNECTIONS];
static int loop, highest = -1;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

/* ---- prepared bytes ------------------------------------------------------------------------------------------- */

static void make_answer(struct piece *p, const char *status, const char *body) {
    p->length = (size_t)snprintf(p->text, sizeof p->text,
                                 "HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n"
                                 "x-request-id: req_bench\r\n\r\n%s", status, strlen(body), body);
    if (p->length >= sizeof p->text) die("an answer does not fit its piece");
}

/* One server-sent event as one HTTP chunk; `before` and `after` are raw bytes around it. */
static void make_event(struct piece *p, const char *before, const char *data, const char *after) {
    p->length = (size_t)snprintf(p->text, sizeof p->text, "%s%zx\r\ndata: %s\n\n\r\n%s", before, strlen(data) + 8, data, after);
    if (p->length >= sizeof p->text) die("an event does not fit its piece");
}

static void prepare(void) {
    make_answer(&answer, "200 OK", ANSWER);
    make_answer(&models, "200 OK", MODELS);
    make_answer(&no_such_route, "404 Not Found", NO_SUCH_ROUTE);
    make_answer(&unreadable, "411 Length Required", UNREADABLE);
    make_event(&opening, STREAM_HEAD,
               EVENT CHOICE("{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null}", "null") ",\"usage\":null}", "");
    for (int i = 0; i < WORD_COUNT; i++) {
        char data[512];
        snprintf(data, sizeof data, EVENT CHOICE("{\"content\":\"%s\"}", "null") ",\"usage\":null}", WORDS[i]);
        make_event(&words[i], "", data, "");
        if (all_words.length + words[i].length > sizeof all_words.text) die("all words do not fit their piece");
        memcpy(all_words.text + all_words.length, words[i].text, words[i].length);
        all_words.length += words[i].length;
    }
    make_event(&finish, "", EVENT CHOICE("{}", "\"stop\"") ",\"usage\":null}", "");
    make_event(&closing, "", "[DONE]", "0\r\n\r\n");
}

static void prepare_usage(struct connection *c) {
    char data[768];
    snprintf(data, sizeof data, EVENT "\"choices\":[],\"usage\":{\"prompt_tokens\":31,\"completion_tokens\":%u,\"total_tokens\":%u," DETAILS "}}",
             c->contents, c->contents + 31);
    make_event(&c->usage, "", data, "");
}

/* ---- one connection ------------------------------------------------------------------------------------------- */

static void watch(int fd, struct connection *c, uint32_t interest) {
    if (c->interest == interest) return;
    struct epoll_event event = {.events = interest, .data.fd = fd};
    if (epoll_ctl(loop, EPOLL_CTL_MOD, fd, &event) < 0) die("epoll_ctl");
    c->interest = interest;
}

static void drop(int fd, struct connection *c) {
    close(fd); /* also leaves the epoll set */
    free(c->request);
    memset(c, 0, sizeof *c);
}

/* Piece 0 opens the stream, 1..steps are words, then finish, usage, [DONE]. False when there is none left. */
static bool next_piece(struct connection *c) {
    if (!c->streaming) return false;
    const struct piece *p;
    unsigned i = c->sent++;
    if (i == 0) p = &opening;
    else if (i <= c->steps) p = c->steps < c->contents ? &all_words : &words[(i - 1) % WORD_COUNT];
    else if (i == c->steps + 1) p = &finish;
    else if (i == c->steps + 2) p = &c->usage;
    else if (i == c->steps + 3) p = &closing;
    else return false;
    c->out = p->text;
    c->left = p->length;
    return true;
}

/* Writes what the socket takes, at most BURST pieces. */
static void push(int fd, struct connection *c) {
    for (int turn = 0; turn < BURST; turn++) {
        if (c->left == 0) {
            if (c->pace_ns && c->streaming && c->sent && c->sent <= c->steps) {
                uint64_t now = now_ns();
                if (now < c->due_ns) return watch(fd, c, EPOLLRDHUP);
                c->due_ns = now + c->pace_ns;
            }
            if (!next_piece(c)) {
                c->streaming = false;
                c->received = 0;
                return watch(fd, c, EPOLLIN | EPOLLRDHUP);
            }
        }
        ssize_t n = send(fd, c->out, c->left, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) break;
        if (n < 0) return drop(fd, c);
        c->out += n;
        c->left -= (size_t)n;
    }
    watch(fd, c, EPOLLOUT | EPOLLRDHUP);
}

static void reply(struct connection *c, const struct piece *p) {
    c->out = p->text;
    c->left = p->length;
}

static const char *value_of(const char *body, const char *quoted_key) {
    const char *at = strstr(body, quoted_key);
    if (!at) return "";
    at += strlen(quoted_key);
    while (*at == ':' || isspace((unsigned char)*at)) at++;
    return at;
}

static void answer_chat(struct connection *c, const char *body) {
    if (strncmp(value_of(body, "\"stream\""), "true", 4) != 0) return reply(c, &answer);
    const char *model = value_of(body, "\"model\"");
    char name[64] = "";
    if (*model == '"') sscanf(model + 1, "%63[^\"]", name);
    const char *digits = name + strcspn(name, "0123456789");
    c->contents = *digits ? (unsigned)strtoul(digits, NULL, 10) : 8;
    bool steady = strstr(name, "steady-");
    c->steps = steady ? c->contents / WORD_COUNT : c->contents;
    c->contents = steady ? c->steps * WORD_COUNT : c->contents;
    c->pace_ns = steady ? STEADY_NS : strstr(name, "paced-") ? PACED_NS : 0;
    c->due_ns = c->pace_ns ? now_ns() + c->pace_ns : 0;
    c->sent = 0;
    c->streaming = true;
    prepare_usage(c);
}

/* True when a whole request has been answered; false while more of it has to come. */
static bool handle(struct connection *c) {
    char *end = strstr(c->request, "\r\n\r\n");
    if (!end) return false;
    size_t head = (size_t)(end - c->request) + 4;
    if (strncmp(c->request, "GET /v1/models", 14) == 0) return reply(c, &models), true;
    if (strncmp(c->request, "POST /v1/chat/completions", 25) != 0) return reply(c, &no_such_route), true;
    char *header = strcasestr(c->request, "\r\ncontent-length:");
    if (!header || header > end) return reply(c, &unreadable), true;
    if (c->received < head + strtoul(header + 17, NULL, 10)) return false;
    return answer_chat(c, c->request + head), true;
}

static void pull(int fd, struct connection *c) {
    if (c->capacity - c->received < 4096) {
        c->capacity = c->capacity ? c->capacity * 2 : 16384;
        if (c->capacity > MAX_REQUEST || !(c->request = realloc(c->request, c->capacity))) return drop(fd, c);
    }
    ssize_t n = recv(fd, c->request + c->received, c->capacity - c->received - 1, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) return drop(fd, c);
    c->received += (size_t)n;
    c->request[c->received] = 0;
    if (handle(c)) push(fd, c);
}

/* ---- the loop ------------------------------------------------------------------------------------------------- */

static void welcome(int listener) {
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (fd >= MAX_CONNECTIONS) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.fd = fd};
        if (epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll_ctl");
        connections[fd].open = true;
        connections[fd].interest = event.events;
        if (fd > highest) highest = fd;
    }
}

/* Pushes every paced stream that is due; returns how long to sleep, in ms, -1 = until something happens. */
static int run_paced(void) {
    uint64_t soonest = UINT64_MAX, now = now_ns();
    for (int fd = 0; fd <= highest; fd++) {
        struct connection *c = &connections[fd];
        if (!c->open || !c->streaming || !c->pace_ns) continue;
        if (c->due_ns <= now && c->left == 0) push(fd, c);
        if (c->open && c->streaming && c->due_ns < soonest) soonest = c->due_ns;
    }
    if (soonest == UINT64_MAX) return -1;
    now = now_ns();
    return soonest <= now ? 1 : (int)((soonest - now + 999999) / 1000000);
}

static int listen_on_loopback(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&address, size) < 0 || listen(fd, 1024) < 0) die("listen");
    if (getsockname(fd, (struct sockaddr *)&address, &size) < 0) die("getsockname");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

int main(void) {
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    prepare();
    loop = epoll_create1(EPOLL_CLOEXEC);
    int listener = listen_on_loopback();
    struct epoll_event first = {.events = EPOLLIN, .data.fd = listener}, events[256];
    if (loop < 0 || epoll_ctl(loop, EPOLL_CTL_ADD, listener, &first) < 0) die("epoll");
    for (;;) {
        int count = epoll_wait(loop, events, 256, run_paced());
        if (count < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            struct connection *c = &connections[fd];
            if (fd == listener) welcome(listener);
            else if (!c->open) continue;
            else if (events[i].events & (EPOLLERR | EPOLLHUP)) drop(fd, c);
            else if (events[i].events & EPOLLIN) pull(fd, c);
            else if (events[i].events & EPOLLRDHUP) drop(fd, c);
            else if (events[i].events & EPOLLOUT) push(fd, c);
        }
    }
}
