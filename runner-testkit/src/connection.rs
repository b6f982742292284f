//! One connection: a thread that reads requests, has them carried out, and answers, or does the
//! damage that the fault plan asks for.

use std::{
    io::{self, IoSlice, Read, Write},
    net::{Shutdown, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use socket2::SockRef;

use crate::{
    control,
    fault::{Fault, Stage},
    http::{self, End, Reader, Reply, Request},
    methods,
    poll::{CONFLICT_POLL, Decision},
    record::{Call, Poll, PollAnswer},
    route::route,
    shared::{Shared, State, Stopped},
    wire::{failure, success, too_many_requests},
};

/// The least that an [oversized](Fault::Oversized) answer has.
const OVERSIZED: usize = 4 << 20;
/// How long a connection that the server closes is drained, so that what it sent is not lost with it.
const DRAIN: Duration = Duration::from_secs(1);

/// Where a connection goes on after a request.
enum Next {
    Request,
    /// Close it in order.
    Close,
    /// Close it with a reset.
    Reset,
}

/// A call: where it came from and what it asks for.
struct Asked {
    connection: u64,
    method: String,
    is_test: bool,
    request: Request,
    fault: Option<Fault>,
}

/// Serves connection `id` until one side closes it or the server ends.
pub(crate) fn serve(shared: &Shared, stream: Arc<TcpStream>, id: u64) {
    let next = requests(shared, &stream, id).unwrap_or(Next::Close);
    if matches!(next, Next::Reset) {
        // If it fails, the close below is an orderly one.
        let _unsupported = SockRef::from(&*stream).set_linger(Some(Duration::ZERO));
    }
    // The server holds the socket as well, to cut it. It is closed when both have let go.
    let mut state = shared.lock();
    let connected = state.connections.remove(&id);
    drop(connected);
    drop(stream);
    shared.changed(&state);
}

fn requests(shared: &Shared, stream: &TcpStream, id: u64) -> io::Result<Next> {
    let mut reader = Reader::new(stream)?;
    loop {
        let request = match reader.next() {
            Ok(request) => request,
            Err(End::Gone) => return Ok(Next::Close),
            Err(End::Refused(status)) => {
                write_all(stream, http::refusal(status).as_bytes())?;
                stream.shutdown(Shutdown::Write)?;
                // Closing with unread bytes would send a reset, which overtakes the answer.
                drain(stream, DRAIN)?;
                return Ok(Next::Close);
            }
        };
        let next = if let Some(path) = request.path.strip_prefix("/control/") {
            let reply = control::handle(shared, path, &request);
            send(stream, &reply)?
        } else {
            match answer(shared, stream, id, request) {
                Ok(next) => next?,
                Err(Stopped) => Next::Close,
            }
        };
        if !matches!(next, Next::Request) {
            return Ok(next);
        }
    }
}

/// Carries out a request and answers it.
fn answer(
    shared: &Shared,
    stream: &TcpStream,
    id: u64,
    request: Request,
) -> Result<io::Result<Next>, Stopped> {
    let (method, is_test) = match route(shared, &request) {
        Ok(routed) => routed,
        Err(reply) => return Ok(send(stream, &reply)),
    };
    let hit = shared.lock().faults.next(&method, &request.params);
    let mut asked = Asked {
        connection: id,
        method,
        is_test,
        request,
        fault: hit.map(|(fault, _)| fault),
    };
    let is_carried_out =
        hit.is_none_or(|(fault, stage)| fault.is_harmless() || stage == Stage::After);
    if let Some((Fault::Delay(span), Stage::Before)) = hit {
        shared.sleep_until(id, Instant::now() + span)?;
    }
    let reply = if is_carried_out {
        carry_out(shared, &mut asked)?
    } else {
        if asked.is_poll() {
            let mut state = shared.lock();
            let index = note_poll(shared, &mut state, &mut asked);
            answer_poll(shared, &mut state, index, PollAnswer::Dropped);
        }
        success("[]")
    };
    match hit {
        None => Ok(send(stream, &reply)),
        Some((Fault::Delay(_), Stage::Before)) => Ok(send(stream, &reply)),
        Some((fault, _)) => damage(shared, stream, id, fault, reply),
    }
}

fn carry_out(shared: &Shared, asked: &mut Asked) -> Result<Reply, Stopped> {
    if asked.is_poll() {
        return get_updates(shared, asked);
    }
    let mut state = shared.lock();
    let done = methods::call(
        &shared.config,
        &mut state,
        &asked.method,
        &asked.request.params,
    );
    if done.wakes {
        shared.wake();
    }
    let index = state.call_count;
    state.call_count += 1;
    if shared.config.records {
        state.calls.push(Call {
            index,
            method: std::mem::take(&mut asked.method),
            params: std::mem::take(&mut asked.request.params),
            at: Instant::now(),
            connection: asked.connection,
            is_test: asked.is_test,
            fault: asked.fault,
            message_id: done.message_id,
        });
    }
    shared.changed(&state);
    Ok(done.reply)
}

fn get_updates(shared: &Shared, asked: &mut Asked) -> Result<Reply, Stopped> {
    let mut answer = br#"{"ok":true,"result":["#.to_vec();
    let mut state = shared.lock();
    let now = state.now();
    let mut decision = state
        .polling
        .get_updates(&asked.request.params, now, &mut answer);
    if matches!(decision, Decision::Wait { .. }) {
        // It may have ended the wait of another.
        shared.wake();
    }
    let index = note_poll(shared, &mut state, asked);
    loop {
        match decision {
            Decision::Answer(count) => {
                answer.extend_from_slice(b"]}");
                answer_poll(shared, &mut state, index, PollAnswer::Updates(count));
                return Ok(Reply::json(200, answer));
            }
            Decision::Refuse(conflict) => {
                drop(state);
                if let Err(Stopped) = shared.sleep_until(asked.connection, conflict.at) {
                    answer_poll(shared, &mut shared.lock(), index, PollAnswer::Cut);
                    return Err(Stopped);
                }
                state = shared.lock();
                answer_poll(shared, &mut state, index, PollAnswer::Refused(409));
                return Ok(failure(409, conflict.text));
            }
            Decision::Wait { ticket, until } => {
                state = match shared.wait(state, asked.connection, until) {
                    Ok(state) => state,
                    Err(Stopped) => {
                        answer_poll(shared, &mut shared.lock(), index, PollAnswer::Cut);
                        return Err(Stopped);
                    }
                };
                let now = state.now();
                decision = state.polling.resume(ticket, now, &mut answer);
            }
        }
    }
}

/// Notes that a getUpdates has arrived; returns its number.
fn note_poll(shared: &Shared, state: &mut State, asked: &mut Asked) -> u64 {
    let index = state.poll_count;
    state.poll_count += 1;
    if shared.config.records {
        state.polls.push(Poll {
            index,
            params: std::mem::take(&mut asked.request.params),
            at: Instant::now(),
            connection: asked.connection,
            is_test: asked.is_test,
            answer: None,
            fault: asked.fault,
        });
    }
    shared.changed(state);
    index
}

fn answer_poll(shared: &Shared, state: &mut State, number: u64, answer: PollAnswer) {
    // Polls that were forgotten meanwhile are not in the list any more.
    let index = number.checked_sub(state.polls_forgotten);
    let poll = index.and_then(|index| state.polls.get_mut(usize::try_from(index).ok()?));
    if let Some(poll) = poll {
        poll.answer = Some((answer, Instant::now()));
    }
    shared.changed(state);
}

impl Asked {
    fn is_poll(&self) -> bool {
        self.method.eq_ignore_ascii_case("getupdates")
    }
}

/// Answers as the fault asks for.
fn damage(
    shared: &Shared,
    stream: &TcpStream,
    id: u64,
    fault: Fault,
    mut reply: Reply,
) -> Result<io::Result<Next>, Stopped> {
    let half = reply.body.len() / 2;
    let next = match fault {
        Fault::BadGateway => send(stream, &bad_gateway()),
        Fault::InternalError => send(stream, &failure(500, "Internal Server Error: restart")),
        Fault::TooManyRequests(seconds) => send(stream, &too_many_requests(seconds)),
        Fault::Conflict => send(stream, &failure(409, CONFLICT_POLL)),
        Fault::Unauthorized => send(stream, &failure(401, "Unauthorized")),
        Fault::Forbidden => send(
            stream,
            &failure(403, "Forbidden: bot was blocked by the user"),
        ),
        Fault::NotFound => send(stream, &failure(404, "Not Found")),
        Fault::Redirect => {
            reply.status = 302;
            reply.headers = format!("Location: http://{}/elsewhere\r\n", shared.config.address);
            reply.body.clear();
            send(stream, &reply)
        }
        Fault::EmptyBody => {
            reply.body.clear();
            send(stream, &reply)
        }
        Fault::TruncatedJson => {
            reply.body.truncate(half);
            send(stream, &reply)
        }
        Fault::WrongLength => write_all(stream, &reply.bytes(half)).map(|()| Next::Request),
        Fault::Reset | Fault::Close => {
            let length = reply.body.len();
            reply.body.truncate(half);
            write_all(stream, &reply.bytes(length)).map(|()| match fault {
                Fault::Reset => Next::Reset,
                _ => Next::Close,
            })
        }
        Fault::CloseUnanswered => Ok(Next::Close),
        Fault::HalfOpen => stream
            .set_read_timeout(None)
            .and_then(|()| drain(stream, Duration::MAX))
            .map(|()| Next::Close),
        Fault::Trickle(pause) => {
            for byte in reply.bytes(reply.body.len()) {
                shared.sleep_until(id, Instant::now() + pause)?;
                if let Err(error) = write_all(stream, &[byte]) {
                    return Ok(Err(error));
                }
            }
            Ok(Next::Request)
        }
        Fault::Delay(span) => {
            shared.sleep_until(id, Instant::now() + span)?;
            send(stream, &reply)
        }
        Fault::Oversized => {
            let padding = format!("{{\"padding\":\"{}\",", "x".repeat(OVERSIZED));
            reply.body.splice(..1, padding.into_bytes());
            send(stream, &reply)
        }
    };
    Ok(next)
}

fn bad_gateway() -> Reply {
    Reply {
        status: 502,
        content_type: "text/html",
        headers: String::new(),
        body: b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n".to_vec(),
    }
}

fn send(mut stream: &TcpStream, reply: &Reply) -> io::Result<Next> {
    // One system call, without copying a body that may have megabytes behind the head.
    let head = reply.head(reply.body.len());
    let written = loop {
        match stream.write_vectored(&[IoSlice::new(&head), IoSlice::new(&reply.body)]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    if let Some(rest) = head.get(written..) {
        stream.write_all(rest)?;
    }
    stream.write_all(&reply.body[written.saturating_sub(head.len())..])?;
    Ok(Next::Request)
}

fn write_all(mut stream: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes)
}

/// Reads until the other side closes, or for about `span`.
fn drain(mut stream: &TcpStream, span: Duration) -> io::Result<()> {
    let start = Instant::now();
    if span != Duration::MAX {
        stream.set_read_timeout(Some(span))?;
    }
    let mut scratch = [0; 4096];
    while start.elapsed() < span {
        match stream.read(&mut scratch) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
