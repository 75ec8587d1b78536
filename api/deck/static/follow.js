// Appends to the log while the run goes on. Without this script the page refreshes itself.
(() => {
  const log = document.getElementById("log");
  if (!log || !("follow" in log.dataset)) return;
  const status = document.getElementById("following");
  const say = (text) => { if (status) status.textContent = text; };
  const source = new EventSource(`/run/${log.dataset.run}/log/stream?offset=${log.dataset.offset}`);
  say("Following.");
  source.onmessage = (event) => {
    const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 4;
    log.append(JSON.parse(event.data));
    if (atEnd) log.scrollTop = log.scrollHeight;
  };
  source.addEventListener("end", () => { source.close(); location.reload(); });
  source.onerror = () => say("The connection is lost; trying again.");
  source.onopen = () => say("Following.");
})();
