// Server-Sent Events, read from what fetch gives: the browser's own EventSource cannot POST a question.

// The data of each event of a stream of bytes. Comments, such as the gateway's signs of life, are none.
export async function* events(stream) {
  const reader = stream.getReader();
  // It holds back half a character until its other half comes, and drops a byte order mark.
  const decoder = new TextDecoder();
  let rest = "";
  let data = [];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      rest += done ? decoder.decode() : decoder.decode(value, { stream: true });
      // A line ends in CR LF, LF or CR. A CR at the very end may be half of the first.
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
      // What no empty line has ended is no event.
      if (done) return;
    }
  } finally {
    // Whoever reads no further wants no more of it: this closes the connection.
    reader.cancel().catch(() => {});
  }
}
