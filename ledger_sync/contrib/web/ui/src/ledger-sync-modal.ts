import { LedgerSyncModal } from "./dialog/modal";
import { define } from "./ui/piece";

define("ledger-sync-modal", LedgerSyncModal);

export { LedgerSyncModal };
export type { Payload } from "./core/types";
