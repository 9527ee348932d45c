import { io } from "socket.io-client";
import type { Access } from "./api";
import type { Channel, OpenChannel } from "./follower";
import type { Payload } from "./types";

/** How long to leave a server alone that has refused us; the client itself tries again only when it was cut off. */
const REFUSED_MS = 30_000;
const ACK_MS = 10_000;

/** The Socket.IO connection of a mount point. */
export function socketChannel(access: Access): OpenChannel {
  return (events): Channel => {
    const at = new URL(`${access.base}/`, location.href);
    let timer: ReturnType<typeof setTimeout> | undefined;
    const socket = io(at.origin, {
      path: `${at.pathname}socket.io/`,
      auth: { token: access.token },
      forceNew: true,
      reconnectionDelay: 1_000,
      reconnectionDelayMax: 30_000,
    });

    const lost = (): void => {
      clearTimeout(timer);
      if (!socket.active) timer = setTimeout(() => socket.connect(), REFUSED_MS);
      events.lost();
    };

    socket.on("connect", () => {
      const whose = access.tenant ? { tenant: access.tenant } : {};
      socket
        .timeout(ACK_MS)
        .emitWithAck("join_vendor_room", whose)
        .then(
          (answer: { room?: string } | null) => (answer?.room === undefined ? socket.disconnect() : events.joined()),
          () => socket.disconnect(),
        );
    });
    socket.on("connect_error", lost);
    socket.on("disconnect", lost);
    for (const name of ["sync_progress", "sync_complete", "sync_error"]) {
      socket.on(name, (payload: Payload) => events.payload(payload));
    }
    socket.on("session_expired", () => events.expired());

    return {
      reopen() {
        if (!socket.connected) socket.disconnect().connect();
      },
      close() {
        clearTimeout(timer);
        socket.removeAllListeners();
        socket.disconnect();
      },
    };
  };
}
