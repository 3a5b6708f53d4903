// Reads Server-Sent Events from a fetch response. The browser's EventSource cannot send a POST request.

// Yields the data of each event. Comments, such as the gateway's heartbeats, are skipped.
export async function* events(stream) {
  const reader = stream.getReader();
  // It buffers incomplete characters, and drops a byte order mark.
  const decoder = new TextDecoder();
  let rest = "";
  let data = [];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      rest += done ? decoder.decode() : decoder.decode(value, { stream: true });
      // A line ends with CR LF, LF or CR. A CR at the end may be the first half of CR LF.
      const lines = rest.split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (data.length) yield data.join("\n");
          data = [];
        } else if (line.startsWith("data:")) {
          data.push(line.slice(line[5] === " " ? 6 : 5));
        }
      }
      // An event without an empty line after it is incomplete, and dropped.
      if (done) return;
    }
  } finally {
    // Also closes the connection if the consumer stops early.
    reader.cancel().catch(() => {});
  }
}
