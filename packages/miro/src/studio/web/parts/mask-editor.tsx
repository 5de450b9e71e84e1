/** Painting the places of a picture that are drawn anew: with a pointer, a finger or the keyboard, or from a file. */
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { messageOf } from "../state/api.js";
import { addEdit, isMasked, mask, maskOfFile, paint, type Stroke, show, undo } from "../state/mask.js";
import { dismissAll, tell } from "../state/notices.js";
import { Dialog } from "./dialog.js";
import { FileButton } from "./field.js";
import { Icon, IconButton } from "./icon.js";
import { isBrowsers } from "./keys.js";
import { useSource } from "./picture.js";

/** Colour of the places that are drawn anew. */
export const MASK_COLOUR = "#ec4899";
/** Most pixels of the canvas along a side: what is shown, not what is sent. */
const SHOWN = 1024;
/** Diameters of the brush in widths of the picture. */
const SIZES = { least: 0.01, most: 0.5, step: 0.01 };

/** The brush as the tools set it. */
interface Brush {
  erase: boolean;
  /** Diameter in widths of the picture. */
  size: number;
}

interface BrushProps {
  brush: Brush;
  setBrush: (change: (brush: Brush) => Brush) => void;
}

interface EditorProps {
  url: string;
  onSize: (size: [number, number]) => void;
  onClose: () => void;
}

export function MaskEditor({ url, onSize, onClose }: EditorProps) {
  const shown = useSource(url);
  const [size, setSize] = useState<[number, number] | null>(null);
  const [brush, setBrush] = useState<Brush>({ erase: false, size: 0.12 });
  const tall = size === null ? 1 : size[1] / size[0];
  // On a phone a notice of before would cover the picture, or what ends the painting.
  useEffect(() => dismissAll(), []);

  const load = (file: File | undefined) => {
    if (!file || size === null) return;
    maskOfFile(file, ...size).then(addEdit, (error) => tell(messageOf(error), { kind: "bad" }));
  };
  // What is dropped here is a mask, and no picture whose settings are wanted.
  const hold = (event: DragEvent) => {
    event.preventDefault();
    event.stopPropagation();
  };
  return (
    <Dialog label="Mask: the places that are drawn anew" class="mask-editor" onClose={onClose}>
      {/* biome-ignore lint/a11y/noStaticElementInteractions: a place to drop files; the button beside does the same */}
      <div
        class="mask-body"
        onDragEnter={hold}
        onDragOver={hold}
        onDrop={(event) => {
          hold(event);
          load(event.dataTransfer?.files[0]);
        }}
      >
        <div class="mask-stage">
          {shown === null ? (
            <span class="waiting" role="img" aria-label="The picture is loaded" />
          ) : (
            <div class="mask-picture" style={{ "--tall": String(tall) }}>
              <img
                src={shown}
                alt=""
                draggable={false}
                onLoad={({ currentTarget: { naturalWidth, naturalHeight } }) => {
                  setSize([naturalWidth, naturalHeight]);
                  onSize([naturalWidth, naturalHeight]);
                }}
                onError={() => {
                  tell("The browser cannot show that file, so no mask can be painted on it.", { kind: "bad" });
                  onClose();
                }}
              />
              {size && <MaskCanvas tall={tall} brush={brush} setBrush={setBrush} />}
            </div>
          )}
        </div>
        <MaskTools brush={brush} setBrush={setBrush} onFile={load} onClose={onClose} />
        <IconButton icon="close" class="mask-close" label="Close" onClick={onClose} />
      </div>
    </Dialog>
  );
}

/** The mask over its picture, and the brush. @param tall height of the picture in its widths */
function MaskCanvas({ tall, brush, setBrush }: BrushProps & { tall: number }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  /** Where the brush is, in widths of the picture; null: nowhere near it. */
  const [at, setAt] = useState<[number, number] | null>(null);
  /** The line that is being painted. */
  const stroke = useRef<Stroke | null>(null);
  const edits = mask.value;

  useLayoutEffect(() => {
    if (stroke.current === null) show(canvas.current!, edits, MASK_COLOUR);
  }, [edits, tall]);
  useEffect(() => canvas.current!.focus({ preventScroll: true }), []);

  const begin = (point: [number, number]) => {
    stroke.current = { kind: "stroke", erase: brush.erase, size: brush.size, points: [point] };
    draw([point]);
  };
  /** Paints the newest part of the line. */
  const draw = (points: [number, number][]) => {
    const line = stroke.current!;
    const last = line.points.at(-1)!;
    line.points.push(...points);
    const context = canvas.current!.getContext("2d")!;
    paint(context, { ...line, points: [last, ...points] });
    context.globalCompositeOperation = "source-in";
    context.fillStyle = MASK_COLOUR;
    context.fillRect(0, 0, context.canvas.width, context.canvas.height);
  };
  const end = () => {
    const line = stroke.current;
    stroke.current = null;
    if (line) addEdit(line);
  };
  const pointOf = ({ clientX, clientY }: { clientX: number; clientY: number }): [number, number] => {
    const { left, top, width } = canvas.current!.getBoundingClientRect();
    return [(clientX - left) / width, (clientY - top) / width];
  };
  const resize = (by: number) => setBrush((now) => ({ ...now, size: clamp(now.size + by, SIZES.least, SIZES.most) }));
  const keys = (event: KeyboardEvent) => {
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (isBrowsers(event)) {
      if (event.key !== "z" || event.altKey) return;
      undo();
    } else if (by) {
      const far = Math.max(0.01, brush.size / (event.shiftKey ? 1 : 4));
      const [x, y] = at ?? [0.5, tall / 2];
      const to: [number, number] = [clamp(x + by[0]! * far, 0, 1), clamp(y + by[1]! * far, 0, tall)];
      setAt(to);
      if (stroke.current) draw([to]);
    } else if (event.key === " ") {
      const point: [number, number] = at ?? [0.5, tall / 2];
      setAt(point);
      if (!event.repeat && stroke.current === null) begin(point);
    } else if (event.key === "e") setBrush((now) => ({ ...now, erase: !now.erase }));
    else if (event.key === "i") addEdit({ kind: "invert" });
    else if (event.key === "[") resize(-SIZES.step * 2);
    else if (event.key === "]") resize(SIZES.step * 2);
    else return;
    event.preventDefault();
  };
  return (
    <>
      {/* biome-ignore lint/a11y/noInteractiveElementToNoninteractiveRole: its keys are those of a program */}
      <canvas
        ref={canvas}
        width={Math.round(SHOWN * Math.min(1, 1 / tall))}
        height={Math.round(SHOWN * Math.min(1, 1 / tall) * tall)}
        role="application"
        aria-label="Mask. Arrow keys move the brush, Space paints while it is held, E erases, I inverts"
        tabIndex={0}
        onKeyDown={keys}
        onKeyUp={(event) => {
          if (event.key === " ") end();
        }}
        onBlur={end}
        onPointerDown={(event) => {
          if (event.button !== 0 || stroke.current) return;
          event.currentTarget.setPointerCapture(event.pointerId);
          begin(pointOf(event));
        }}
        onPointerMove={(event) => {
          setAt(event.pointerType === "touch" ? null : pointOf(event));
          if (stroke.current && event.currentTarget.hasPointerCapture(event.pointerId))
            draw([...(event.getCoalescedEvents?.() ?? []), event].map(pointOf));
        }}
        onPointerUp={end}
        onPointerCancel={end}
        onPointerLeave={() => setAt(null)}
      />
      {at && (
        <span
          class={`brush ${brush.erase ? "erases" : ""}`}
          style={{ left: `${100 * at[0]}%`, top: `${(100 * at[1]) / tall}%`, width: `${100 * brush.size}%` }}
        />
      )}
    </>
  );
}

interface ToolsProps extends BrushProps {
  onFile: (file: File) => void;
  onClose: () => void;
}

/** What stands beside the picture: the brush, and what is done to the whole mask. */
function MaskTools({ brush, setBrush, onFile, onClose }: ToolsProps) {
  const edits = mask.value;
  const erase = (erase: boolean) => setBrush((now) => ({ ...now, erase }));
  return (
    <div class="mask-tools">
      <h2>Mask</h2>
      <p class="help">What you paint is drawn anew; the rest of the picture stays.</p>
      <fieldset class="mask-modes">
        <legend class="visually-hidden">Brush</legend>
        <button type="button" class="quiet" aria-pressed={!brush.erase} onClick={() => erase(false)}>
          <Icon name="brush" /> Paint
        </button>
        <button type="button" class="quiet" aria-pressed={brush.erase} onClick={() => erase(true)}>
          <Icon name="eraser" /> Erase
        </button>
      </fieldset>
      <label class="field">
        <span>Size of the brush</span>
        <input
          type="range"
          min={SIZES.least}
          max={SIZES.most}
          step={SIZES.step}
          value={brush.size}
          onInput={(event) => {
            const size = Number(event.currentTarget.value);
            setBrush((now) => ({ ...now, size }));
          }}
        />
      </label>
      <div class="mask-edits">
        <button type="button" class="quiet" disabled={edits.length === 0} onClick={undo}>
          <Icon name="reset" /> Undo
        </button>
        <button type="button" class="quiet" disabled={!isMasked(edits)} onClick={() => addEdit({ kind: "clear" })}>
          <Icon name="trash" /> Clear
        </button>
        <button type="button" class="quiet" onClick={() => addEdit({ kind: "invert" })}>
          <Icon name="invert" /> Invert
        </button>
        <FileButton label="File of a mask" class="quiet" onFile={onFile}>
          <Icon name="picture" /> From a file …
        </FileButton>
      </div>
      <p class="help">
        A file's white places are drawn anew; it can be dropped here too. Keys: arrows and Space paint, E erases, I
        inverts, [ and ] size the brush, Ctrl+Z undoes.
      </p>
      <button type="button" class="generate small" onClick={onClose}>
        Done
      </button>
    </div>
  );
}

function clamp(value: number, least: number, most: number): number {
  return Math.min(most, Math.max(least, value));
}
