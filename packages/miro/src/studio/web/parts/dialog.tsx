/** A dialog over the page: Escape and a click beside it close it, and the focus goes back to where it was. */
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { Notices } from "./notices.js";

interface DialogProps {
  label: string;
  class?: string;
  /** Absent: it stays until it is no longer needed. */
  onClose?: () => void;
  onKeyDown?: (event: KeyboardEvent) => void;
  children: ComponentChildren;
}

export function Dialog({ label, class: name = "", onClose, onKeyDown, children }: DialogProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  /** Where the pointer went down: what is dragged out of the dialog, as text is chosen, does not close it. */
  const pressed = useRef<EventTarget | null>(null);
  useEffect(() => {
    const before = document.activeElement as HTMLElement | null;
    dialog.current!.showModal();
    return () => before?.focus?.({ preventScroll: true });
  }, []);
  return (
    <dialog
      ref={dialog}
      class={name}
      aria-label={label}
      onCancel={(event) => {
        event.preventDefault();
        onClose?.();
      }}
      // A browser that is told so twice closes a dialog without asking: by a gesture, for the key is kept from it.
      onClose={() => (onClose ? onClose() : dialog.current?.showModal())}
      onKeyDown={(event) => {
        if (!onClose && event.key === "Escape") event.preventDefault();
        onKeyDown?.(event);
      }}
      onPointerDown={(event) => {
        pressed.current = event.target;
      }}
      onClick={(event) => {
        if (event.target === dialog.current && pressed.current === dialog.current) onClose?.();
      }}
    >
      {children}
      <Notices />
    </dialog>
  );
}
