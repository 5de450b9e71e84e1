/** Whether only this machine reaches an address, as it is written: `localhost`, `::1`, `127.0.0.1` and its like. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127(?:\.\d{1,3}){3}$/.test(host);
}
