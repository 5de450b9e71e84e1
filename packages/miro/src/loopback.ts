import { BlockList, isIP } from "node:net";

const ADDRESSES = new BlockList();
ADDRESSES.addSubnet("127.0.0.0", 8);
ADDRESSES.addAddress("::1", "ipv6");

/** Whether only this machine reaches an address: `localhost`, `127.0.0.1` and its like, `::1` however it is written. */
export function isLoopback(host: string): boolean {
  const version = isIP(host);
  return version === 0 ? host === "localhost" : ADDRESSES.check(host, version === 4 ? "ipv4" : "ipv6");
}
